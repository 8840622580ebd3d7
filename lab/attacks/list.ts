/** The attacks that there are: the library OSes of examples/attacks/, by the name of their file. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const FOLDER = new URL('../../examples/attacks/', import.meta.url);
const NO_ATTACKS = ['hostile', 'victim'];

export interface Attack {
  readonly name: string;
  /** the sentence that its file opens with */
  readonly does: string;
}

/** The file of an attack by its name, or by a path. */
export const fileOf = (name: string): string =>
  name.endsWith('.ts') ? name : fileURLToPath(new URL(`${name}.ts`, FOLDER));

export function attacks(): readonly Attack[] {
  return readdirSync(FOLDER)
    .map((file) => file.replace(/\.ts$/, ''))
    .filter((name) => !NO_ATTACKS.includes(name))
    .sort()
    .map((name) => {
      const text = readFileSync(fileOf(name), 'utf8');
      return { name, does: /^\/\*\* (.*?) \*\//.exec(text)?.[1] ?? '' };
    });
}
