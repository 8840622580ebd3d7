/** Where two worlds differ, in words: paths into them, and what stands there. */

const MOST = 8; // differences told

/** All differences between what is and what should be, none if there are none. */
export function differences(is: unknown, due: unknown): string[] {
  if (same(is, due)) return []; // nearly always, and quicker than to say where not
  const found: string[] = [];
  compare(is, due, '', found);
  return found.length > MOST ? [...found.slice(0, MOST), `and ${found.length - MOST} more`] : found;
}

type Fields = Record<string, unknown>;

function same(is: unknown, due: unknown): boolean {
  if (is === due) return true;
  if (typeof is !== 'object' || typeof due !== 'object' || is === null || due === null)
    return false;
  if (Array.isArray(is)) {
    if (!Array.isArray(due) || is.length !== due.length) return false;
    for (let n = 0; n < is.length; n++) if (!same(is[n], due[n])) return false;
    return true;
  }
  if (is instanceof Map) {
    if (!(due instanceof Map) || is.size !== due.size) return false;
    for (const [key, value] of is) if (!same(value, due.get(key))) return false;
    return true;
  }
  if (is instanceof Set) {
    if (!(due instanceof Set) || is.size !== due.size) return false;
    for (const one of is) if (!due.has(one)) return false;
    return true;
  }
  for (const key in is) if (!same((is as Fields)[key], (due as Fields)[key])) return false;
  for (const key in due) if (!(key in is)) return false;
  return true;
}

function compare(is: unknown, due: unknown, path: string, found: string[]): void {
  if (same(is, due)) return;
  if (typeof is !== 'object' || typeof due !== 'object' || is === null || due === null) {
    found.push(`${path}: ${show(is)}, should be ${show(due)}`);
  } else if (Array.isArray(is) && Array.isArray(due) && is.length === due.length) {
    is.forEach((one, n) => {
      compare(one, due[n], `${path}[${n}]`, found);
    });
  } else if (is instanceof Map && due instanceof Map) {
    for (const key of new Set([...is.keys(), ...due.keys()]) as Set<unknown>) {
      compare(is.get(key), due.get(key), `${path}(${String(key)})`, found);
    }
  } else if (!Array.isArray(is) && !(is instanceof Set)) {
    for (const key of new Set([...Object.keys(is), ...Object.keys(due)])) {
      compare((is as Fields)[key], (due as Fields)[key], `${path}.${key}`, found);
    }
  } else found.push(`${path}: ${show(is)}, should be ${show(due)}`);
}

export const show = (value: unknown): string =>
  value === undefined
    ? 'nothing'
    : JSON.stringify(value, (_, part: unknown) =>
        part instanceof Map || part instanceof Set
          ? [...(part as Iterable<unknown>)]
          : typeof part === 'number' && !Number.isFinite(part)
            ? String(part)
            : part,
      );
