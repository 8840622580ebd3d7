import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // mine/: your own, not of the project
    include: ['test/**/*.test.ts', 'examples/*.test.ts', 'mine/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 30_000, // ms: property suites are long, and a loaded machine is slow
    setupFiles: ['test/setup.ts'], // once in every test file: seeds it
    globalSetup: ['test/setup.ts'], // once in a run: prints the seed
  },
});
