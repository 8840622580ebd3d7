/** The contract of Machine, over every implementer and every test mode. */
import { LONG } from '../tiers.ts';
import { machineContract } from './contract.ts';
import { LONG_MAKERS, MAKERS } from './rigs.ts';

for (const maker of LONG ? [...MAKERS, ...LONG_MAKERS] : MAKERS) machineContract(maker);
