"""Commands: what each verb of the command line does, as plain functions; __main__.py only reads their options."""
