/**
 * A library OS out of a file of its author's: TypeScript as it is. Whatever can be wrong with the
 * file is said in one message that names it, the line where there is one, and what would work.
 */
import { existsSync, statSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Image } from '../../libos/libos.ts';
import { UsageError } from '../tree.ts';
import { lineOf } from './witness.ts';

const RECIPE = "export default image('name', (port) => new MyLibOS(port))";

/** What can be said without running anything of it. */
export function checkFile(file: string): string {
  const path = resolve(file);
  if (!existsSync(path)) {
    throw new UsageError(
      `${file}: no such file; \`exoscope new NAME\` writes a library OS to begin with`,
    );
  }
  if (!statSync(path).isFile() || !/\.[cm]?[jt]s$/.test(path)) {
    throw new UsageError(`${file}: not a TypeScript or JavaScript file`);
  }
  return path;
}

/** Loads the file's image. Throws UsageError, with the author's line, for anything else. */
export async function loadImage(path: string): Promise<Image> {
  const name = basename(path);
  let found: unknown;
  try {
    found = await import(pathToFileURL(path).href);
  } catch (error) {
    throw new UsageError(whyNot(name, path, error));
  }
  const exported = exportOf(found);
  if (isImage(exported)) return exported;
  const what =
    exported === undefined ? 'exports no image' : `its export is ${kindOf(exported)}, not an image`;
  throw new UsageError(`${name}: ${what}; write \`${RECIPE}\``);
}

function whyNot(name: string, path: string, error: unknown): string {
  if (!(error instanceof Error)) return `${name}: threw ${String(error)} while it was loaded`;
  const compile = /:(\d+):(\d+): ERROR: (.*)/.exec(error.message);
  if (compile !== null) {
    const [, line = '', column = '', what = ''] = compile;
    return `${name}:${line}:${column}: does not compile: ${what}`;
  }
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') {
    const missing = /'([^']+)'/.exec(error.message)?.[1] ?? '?';
    return (
      `${name}: imports '${missing}', which is not there; ` +
      "in a checkout import '../libos/libos.ts' by path, elsewhere 'exoscope/libos/libos.ts'"
    );
  }
  const line = lineOf(error.stack ?? '', [path]);
  const said = `${error.name}: ${error.message}`.split('\n')[0] ?? '';
  return `${name}: threw ${said} while it was loaded${line === '' ? '' : `, at ${line}`}`;
}

/**
 * The default export, or the one named `image`, or else the only image among them; CommonJS wraps
 * them all in a default once more.
 */
function exportOf(module: unknown): unknown {
  const wrapped = memberOf(module, 'default');
  const own = [module, wrapped].flatMap((exports) => [
    memberOf(exports, 'default'),
    memberOf(exports, 'image'),
  ]);
  const named = [module, wrapped].flatMap((exports): unknown[] =>
    typeof exports === 'object' && exports !== null ? Object.values(exports) : [],
  );
  const only = new Set(named.filter(isImage));
  return (
    own.find(isImage) ??
    (only.size === 1 ? [...only][0] : own.find((one) => one !== undefined && !isBlank(one)))
  );
}

/** What CommonJS exports if nothing was exported. */
const isBlank = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0;

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && name in value
    ? (value as Record<string, unknown>)[name]
    : undefined;
}

function isImage(value: unknown): value is Image {
  const entries = memberOf(value, 'entryCount');
  return (
    typeof memberOf(value, 'load') === 'function' &&
    typeof memberOf(value, 'name') === 'string' &&
    Number.isInteger(entries) &&
    (entries as number) > 0
  );
}

function kindOf(value: unknown): string {
  if (typeof value !== 'function') return value === null ? 'null' : `of type ${typeof value}`;
  return /^class\b/.test(Function.prototype.toString.call(value)) ? 'a class' : 'a function';
}
