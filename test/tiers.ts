/**
 * Long tiers: `npm run test:long` runs the whole suite with the numbers that take their time;
 * `npm test` the same tests with smaller ones.
 */
export const LONG = process.env['EXOSCOPE_LONG'] === '1';
