/** The contract of Machine, over every implementer and every test mode. */
import { machineContract } from './contract.ts';
import { MAKERS } from './rigs.ts';

for (const maker of MAKERS) machineContract(maker);
