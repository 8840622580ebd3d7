/** The subcommands of the command line, a line each: see command.ts for what one is. */
export { attackCommand } from './attack.ts';
export { compareCommand } from './compare.ts';
export { explainCommand } from './explain.ts';
export { mapCommand } from './map.ts';
export { newCommand } from './new.ts';
export { runCommand } from './run.ts';
export { shellCommand } from './shell.ts';
