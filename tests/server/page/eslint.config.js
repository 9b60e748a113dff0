// Rules for the search page and its tests. The packages lie where `make page` put them, beside eslint itself.
import { createRequire } from "node:module";

const installed = createRequire(process.argv[1]);
const js = installed("@eslint/js");
const globals = installed("globals");

export default [
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2023, sourceType: "module" },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
      "no-shadow": "error",
      "no-var": "error",
      "no-implicit-globals": "error",
      "no-restricted-properties": ["error", ...["innerHTML", "outerHTML"].map((property) => ({ property, message: "Use make(): texts are never read as HTML." }))],
      "prefer-const": "error",
      eqeqeq: "error",
      curly: ["error", "multi-line"],
    },
  },
  { files: ["vireid/server/page/*.js"], languageOptions: { globals: globals.browser } },
  { files: ["tests/server/page/*.js", "tests/server/page/*.mjs"], languageOptions: { globals: globals.node } },
];
