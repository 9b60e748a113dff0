"""The command line: options and printing only; what a verb does is a function of vireid.workflows."""
