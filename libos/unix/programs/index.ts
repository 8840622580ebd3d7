/** All programs, in a fixed order: a program's place here is its number. */
import type { Program } from '../process.ts';
import { cat } from './cat.ts';
import { cp } from './cp.ts';
import { echo } from './echo.ts';
import { env } from './env.ts';
import { find } from './find.ts';
import { grep } from './grep.ts';
import { head } from './head.ts';
import { kill } from './kill.ts';
import { kvget, kvput } from './kv.ts';
import { ls } from './ls.ts';
import { chmod, ln, mkdir, mv, rm, rmdir, touch } from './names.ts';
import { mux } from './mux.ts';
import { primes } from './primes.ts';
import { printf } from './printf.ts';
import { df, ps } from './ps.ts';
import { pwd } from './pwd.ts';
import { seq } from './seq.ts';
import { sh } from './sh.ts';
import { sha256sum } from './sha256sum.ts';
import { sleep, timeout } from './sleep.ts';
import { no, sync, yes } from './small.ts';
import { sort } from './sort.ts';
import { cut, tail, tee, tr } from './text.ts';
import { bracket, test } from './test.ts';
import { uniq } from './uniq.ts';
import { wc } from './wc.ts';
import { xargs } from './xargs.ts';

export const PROGRAMS: readonly Program[] = [
  sh,
  cat,
  cp,
  echo,
  no,
  find,
  grep,
  head,
  ls,
  primes,
  seq,
  sha256sum,
  sort,
  sync,
  yes,
  uniq,
  wc,
  xargs,
  mv,
  ln,
  rm,
  rmdir,
  mkdir,
  touch,
  chmod,
  tail,
  tee,
  cut,
  tr,
  kill,
  kvput,
  kvget,
  test,
  bracket,
  sleep,
  timeout,
  mux,
  env,
  pwd,
  printf,
  ps,
  df,
];
