/**
 * What a Unix program is given: the system interface of its process, all of it user code of its own
 * environment. Data that a program works on lies in simulated memory; `read` and `write` move bytes
 * between a descriptor and the process's memory. What host code does with bytes once it has them
 * (port.read, port.write) is charged from the table in work.ts.
 */
import type { KvClient } from '../kv/client.ts';
import type { Op, UserPort } from '../syscalls.ts';

/** Results below zero are errors. */
export const Errno = {
  EPERM: -1,
  ENOENT: -2,
  ESRCH: -3,
  EINTR: -4,
  EIO: -5,
  ENXIO: -6,
  E2BIG: -7,
  EBADF: -9,
  ECHILD: -10,
  EAGAIN: -11,
  ENOMEM: -12,
  EACCES: -13,
  EEXIST: -17,
  ENOTDIR: -20,
  EISDIR: -21,
  EINVAL: -22,
  ENFILE: -23,
  EMFILE: -24,
  EFBIG: -27,
  ENOSPC: -28,
  EMLINK: -31,
  EPIPE: -32,
  ENAMETOOLONG: -36,
  ENOTEMPTY: -39,
} as const;

/** Flags of open. */
export const O_READ = 1;
export const O_WRITE = 2;
export const O_CREATE = 4;
export const O_TRUNCATE = 8;
export const O_DIRECTORY = 16;
export const O_APPEND = 32;
export const O_EXCLUSIVE = 64;

export const Signal = {
  INT: 2,
  QUIT: 3,
  KILL: 9,
  USR1: 10,
  SEGV: 11,
  USR2: 12,
  PIPE: 13,
  TERM: 15,
  CHLD: 17,
  CONT: 18,
  STOP: 19,
  TSTP: 20,
} as const;

/** What `wait` is asked: which child, whether to wait at all, whether stopped ones count. */
export interface WaitFor {
  readonly pid?: number;
  readonly noHang?: boolean;
  readonly stopped?: boolean;
}
/** Of a stopped child wait says this, and the signal. */
export const STOPPED = 0x100;

export const STDIN = 0;
export const STDOUT = 1;
export const STDERR = 2;
export const OPEN_MAX = 16; // descriptors of a process
/** Bytes of a program's arguments and environment together, a zero byte behind each string. */
export const ARG_MAX = 2304;
/** Cycles of a second: the clock of a Unix is simulated time, on a machine of 1 GHz. */
export const SECOND = 1e9;
/** So many bytes written to a pipe at once come out together, whoever else writes to it. */
export const PIPE_BUF = 512;

/** What `poll` is asked of a descriptor, and what it says of it; the last three unasked. */
export const Poll = {
  /** A read would not wait. */
  IN: 1,
  /** A write of PIPE_BUF bytes would not wait. */
  OUT: 4,
  /** Nobody reads: a write would fail. */
  ERR: 8,
  /** Nobody writes any more. */
  HUP: 16,
  /** No such descriptor. */
  NVAL: 32,
} as const;
export interface PollFor {
  /** below 0: not asked for */
  readonly fd: number;
  readonly events: number;
}

export interface Stat {
  readonly inode: number;
  readonly directory: boolean;
  readonly bytes: number;
  /** permission bits, as in 0o644 */
  readonly mode: number;
  readonly links: number;
}

/** Of the file system. */
export interface Room {
  readonly blocks: number;
  readonly freeBlocks: number;
  readonly freeInodes: number;
}

/** What forked children start at: a function of the program, found again by its number. */
export type Child = (process: Process, argument: number) => Op<number>;

/** A program: `main`, and the functions that its forked children can start at. */
export interface Program {
  readonly name: string;
  readonly main: (process: Process) => Op<number>;
  readonly children?: readonly Child[];
}

export interface Process {
  readonly port: UserPort;
  readonly pid: number;
  /** argv, fetched from the process's memory when it started; args[0] is the program's name. */
  readonly args: readonly string[];
  /** `NAME=value`, fetched likewise. */
  readonly environment: readonly string[];

  // Descriptors. All return a negative Errno on failure.
  open(path: string, flags: number): Op<number>;
  close(fd: number): Op<number>;
  /** Reads up to `bytes` bytes to address `va`; 0 at the end of file, or when no writer is left. */
  read(fd: number, va: number, bytes: number): Op<number>;
  /** Writes all of them (unless an error comes first): the count is `bytes`. */
  write(fd: number, va: number, bytes: number): Op<number>;
  /** Both ends of a new pipe: [read, write], or an error. */
  pipe(): Op<readonly [number, number] | number>;
  /** Makes `to` another name of `from`, closing what it was. */
  dup2(from: number, to: number): Op<number>;
  /**
   * Waits until one of the descriptors is as it is asked to be, or `cycles` have passed (-1: as
   * long as it takes; 0: only looks): what is so of each, 0 if nothing. EINTR if a signal was
   * handled, also one that had come before.
   */
  poll(wanted: readonly PollFor[], cycles: number): Op<readonly number[] | number>;

  // Files. Paths are relative to the working directory or begin with /; components up to 255 bytes.
  stat(path: string): Op<Stat | number>;
  mkdir(path: string): Op<number>;
  /** Names in a directory, in no order, without . and .. */
  readdir(path: string): Op<readonly string[] | number>;
  /** Takes a name away: of a file or an empty directory; `only` is which of them it may be. */
  unlink(path: string, only?: 'file' | 'directory'): Op<number>;
  /** Gives what `from` names the name `to`, in place of a file or empty directory there. */
  rename(from: string, to: string): Op<number>;
  /** One more name for a file. */
  link(from: string, to: string): Op<number>;
  chmod(path: string, mode: number): Op<number>;
  /** Lets an open file have `bytes` bytes. */
  truncate(fd: number, bytes: number): Op<number>;
  /** Moves the offset of an open file: from its start, from where it is, or from its end. */
  seek(fd: number, offset: number, from: 'start' | 'here' | 'end'): Op<number>;
  /** What was written to a descriptor is durable when it returns. */
  fsync(fd: number): Op<number>;
  room(): Op<Room | number>;
  chdir(path: string): Op<number>;
  /** Everything written so far, the key-value store's too, is durable when it returns. */
  sync(): Op<number>;

  // The key-value store that lodges with this Unix.
  /**
   * A session with it, whose buffer is ours to read and write until `closeStore`, which the end of
   * a program does too; ENXIO if there is no store.
   */
  openStore(): Op<KvClient | number>;
  closeStore(): Op<void>;

  // Memory.
  /** `bytes` more bytes of zero-filled heap, page-aligned; its address, or ENOMEM. */
  heap(bytes: number): Op<number>;

  // Processes.
  /** A copy of this process, copy on write, at child function number `child`. Returns its pid. */
  fork(child: number, argument: number): Op<number>;
  /** Replaces the program; returns only on failure. Without an environment, it gets ours. */
  exec(program: string, args: readonly string[], environment?: readonly string[]): Op<number>;
  /**
   * Waits for a child to end: its pid and exit status (128 and a signal, if that ended it), or
   * ECHILD; EINTR if a signal was handled meanwhile; pid 0 if it is not to wait and none has
   * ended.
   */
  wait(what?: WaitFor): Op<readonly [pid: number, status: number] | number>;
  /** Sends a signal to a process, or (below 0) to all of a group; 0 asks whether it is there. */
  kill(pid: number, signal: number): Op<number>;
  /** What a signal does from now on; a number is a function of the program, as fork's. */
  handle(signal: number, how: 'default' | 'ignore' | number): Op<number>;
  /** Puts a process into a group, or (0) into one of its own. */
  setGroup(pid: number, group: number): Op<number>;
  /** The group that ^C at the terminal is for. */
  setForeground(group: number): Op<void>;
  exit(status: number): Op<never>;
}
