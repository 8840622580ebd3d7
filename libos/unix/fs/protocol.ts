/**
 * What processes say to the file server. A message's word 0 is the operation and the file window
 * used, word 1 to 3 its arguments; paths and data lie in the window. The reply's word 0 is a
 * result, negative for an error; words 1 to 3 what the operation says.
 */
export const FsOp = {
  window: 1, // with a granted page: () -> index of the page in the server's window table
  lookup: 2, // (directory, path bytes) -> inode, kind | mode << 8 | links << 20, bytes
  read: 3, // (inode, offset, bytes) -> count
  write: 4, // (inode, offset, bytes) -> count
  create: 5, // (directory, path bytes, kind) -> inode
  truncate: 6, // (inode, bytes)
  unlink: 7, // (directory, path bytes, 0 anything, 1 no directory, 2 a directory alone)
  list: 8, // (inode, offset) -> bytes of records in the window, next offset
  sync: 9,
  open: 10, // (directory, path bytes, flags) -> open file
  append: 11, // (inode, bytes) -> count, offset behind it
  rename: 12, // (directory, bytes of the path, bytes of the new path behind it)
  link: 13, // (directory, bytes of the path, bytes of the new path behind it)
  mode: 14, // (directory, path bytes, mode)
  reap: 15, // somebody has closed a file without a name
  size: 16, // (inode) -> bytes
  space: 17, // () -> blocks, of them free, inodes | free inodes
  shrink: 18, // from the scheduler: frames are to be parted with
} as const;

/** How to unlink. */
export const UNLINK_ANY = 0;
export const UNLINK_FILE = 1;
export const UNLINK_DIRECTORY = 2;

export const request = (op: number, set: number): number => op | (set << 8);
export const opOf = (word: number): number => word & 0xff;
export const setOf = (word: number): number => word >>> 8;
