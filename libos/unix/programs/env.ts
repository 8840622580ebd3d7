/**
 * env: `env [-i] [-u NAME] [NAME=VALUE..] [COMMAND [ARGUMENT..]]`: runs a command in another
 * environment, or prints that. Exit status 125: it made no sense; 126, 127: no such command.
 */
import { Errno, type Program } from '../process.ts';
import { Io, messageOf } from './io.ts';

const TROUBLE = 125;
const CANNOT_RUN = 126;
const NOT_FOUND = 127;

export const env: Program = {
  name: 'env',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const words = process.args.slice(1);
    const values = new Map<string, string>();
    const set = (entry: string): void => {
      const at = entry.indexOf('=');
      values.set(entry.slice(0, at), entry.slice(at + 1));
    };
    process.environment.forEach(set);
    for (let word = words[0]; word?.startsWith('-') === true; word = words[0]) {
      words.shift();
      if (word === '--') break;
      if (word === '-i' || word === '-') values.clear();
      else if (word === '-u') {
        const name = words.shift();
        if (name === undefined) return yield* io.die("option requires an argument -- 'u'");
        values.delete(name);
      } else return yield* io.die(`invalid option -- '${word.replace(/^-/, '')}'`);
    }
    while (words[0]?.includes('=') === true) set(words.shift() ?? '');
    const environment = [...values].map(([name, value]) => `${name}=${value}`);
    const [command] = words;
    if (command === undefined) {
      for (const entry of environment) yield* io.out.text(`${entry}\n`);
      return yield* io.end();
    }
    const error = yield* process.exec(command, words, environment);
    yield* io.complain(`'${command}': ${messageOf(error)}`);
    return error === Errno.ENOENT ? NOT_FOUND : CANNOT_RUN;
  },
};
