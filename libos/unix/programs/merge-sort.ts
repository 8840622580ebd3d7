/**
 * A stable merge sort that counts: how many comparisons a sort makes is charged, so it must not
 * depend on the host's own sort.
 */

export interface Sorted {
  readonly order: Int32Array;
  readonly comparisons: number;
}

/** The numbers below `count` in the order of `compare`; equals keep their order. */
export function mergeSort(count: number, compare: (a: number, b: number) => number): Sorted {
  let from = Int32Array.from({ length: count }, (_, n) => n);
  let to = new Int32Array(count);
  let comparisons = 0;
  for (let width = 1; width < count; width *= 2) {
    for (let start = 0; start < count; start += 2 * width) {
      const middle = Math.min(start + width, count);
      const end = Math.min(middle + width, count);
      let [left, right] = [start, middle];
      for (let at = start; at < end; at++) {
        let takeLeft = right === end;
        if (left < middle && right < end) {
          comparisons++;
          takeLeft = compare(from[left] ?? 0, from[right] ?? 0) <= 0;
        }
        to[at] = from[takeLeft ? left++ : right++] ?? 0;
      }
    }
    [from, to] = [to, from];
  }
  return { order: from, comparisons };
}
