// The lint of the project. Layout, imports and banned words are test/tidy.test.ts's business; this
// asks what needs types. The project's own rule is TypeScript, like everything else here.
import { defineConfig } from 'eslint/config';
import { tsImport } from 'tsx/esm/api';
import tseslint from 'typescript-eslint';

const { noForgottenYield } = await tsImport('./lint/no-forgotten-yield.ts', import.meta.url);

export default defineConfig(
  { ignores: ['node_modules/', 'dist/', 'coverage/', 'out/'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: {
      parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    plugins: { exoscope: { rules: { 'no-forgotten-yield': noForgottenYield } } },
    rules: {
      'exoscope/no-forgotten-yield': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      // `port.store32(va, v) ?? (yield* port.fault());` is a statement of this project.
      '@typescript-eslint/no-unused-expressions': ['error', { allowShortCircuit: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-this-alias': 'off', // no arrow function is a generator
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/no-unnecessary-condition': 'off',
      'require-yield': 'off', // an Op that never traps is still an Op
    },
  },
);
