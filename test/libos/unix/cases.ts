/**
 * Scripts that the simulated programs and the host's own tools must answer with the same bytes and
 * the same exit status: one table, run on the model of a process and on the real one.
 */
import type { Files } from './host.ts';

export interface Case {
  readonly name: string;
  readonly script: string;
  readonly files: Files;
}

/** Lines with many repetitions, from a linear congruential generator. */
function manyLines(count: number): string {
  let seed = 12_345;
  const next = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % below;
  };
  return Array.from(
    { length: count },
    () => `${'function word '.slice(next(9), 3 + next(11))}${next(70)}\n`,
  ).join('');
}

const EVERY_BYTE = Array.from({ length: 256 }, (_, n) => String.fromCharCode(n)).join('');

export const AWKWARD: Files = {
  empty: '',
  plain: 'one\ntwo words\n\tthree  more words \nfunction four\n',
  'no-newline': 'alpha\nbeta function',
  newlines: '\n\n\n',
  nul: 'a\0b\0\nfunction \0 x\n\0function',
  binary: `${EVERY_BYTE}function${EVERY_BYTE}${EVERY_BYTE}`,
  long: `${'x'.repeat(100_000)}function${'y'.repeat(70_000)}\nz\n${'w'.repeat(65_535)}\nfunction`,
  longer: `${'q'.repeat(1_500_000)}\n${'q'.repeat(1_500_000)}\nq`,
  lines: manyLines(20_000),
  numbers:
    '10\n9\n-3\n 2\n2\n\t2x\n' +
    '1.5\n1.25\n1.250\n007\nabc\n\n-0\n0\n-\n.5\n-.5\n12345678901234567890\n' +
    '12345678901234567891\n1e3\n+4\n7.\n10\n 10\n-10\n-10.5\n',
  'with space': 'function in a name with a space\n',
  "it's": 'quote function\n',
  'say "hi"': 'double\nfunction\n',
  '-dash': 'dash function\n',
  '-n': 'flag function\n',
  'back\\slash': 'function \\ backslash\n',
  'new\nline': 'function in a name of two lines\n',
  'return\rhere': 'function in a name with a return\n',
  '\xe9t\xe9': 'summer function\n',
  '.hidden': 'hidden function\n',
  'dir/sub/deep/file': 'deep function\n',
  'dir/b': 'b\n',
  'dir/.c': 'c\n',
  'dir/sub/a': 'function\nfunction\n',
  'empty-dir/': '',
  words: Array.from({ length: 100 }, (_, n) => 'word'.repeat(n)).join(' '),
  items: 'one two\tthree\n  "four five" \'six "seven"\' eig\\ ht n"in"e ""\n\n"" ten\\\nten',
};

/** A name and a script on the awkward tree. */
const TABLE: readonly (readonly [name: string, script: string])[] = [
  ['cat: files', 'cat plain no-newline empty nul'],
  ['cat: long and binary', 'cat long binary longer'],
  ['cat: standard input and operands', 'cat plain | cat no-newline - empty'],
  ['cat: missing, and a directory', 'cat plain nope dir no-newline'],
  ['cat: a flag that is a name', 'cat -- -n -dash'],

  ['wc: one file', 'wc plain'],
  ['wc: several, with a total', 'wc plain no-newline empty nul binary long lines'],
  ['wc: standard input', 'cat plain | wc'],
  ['wc: one count of one input', 'wc -l plain; cat long | wc -c; wc -w binary; wc -l < plain'],
  ['wc: two counts', 'wc -lc plain; cat lines | wc -l -w; wc -c -l plain empty'],
  ['wc: words', 'wc -w plain newlines nul binary long'],
  ['wc: a directory and a missing file', 'wc plain nope dir; wc dir; wc nope plain; wc -l dir'],
  ['wc: dash among the names', 'cat plain | wc -l - no-newline'],
  ['wc: nothing', 'cat empty | wc -lc'],

  ['grep: plain', 'grep -aFHn function plain no-newline nul binary long lines'],
  ['grep: standard input', 'cat plain | grep -aF function; cat nul | grep -aFHn function'],
  ['grep: names by the number of files', 'grep -aF o plain; grep -aF o plain no-newline'],
  ['grep: no names', 'grep -aFh o plain no-newline'],
  ['grep: counts', 'grep -aFc function lines; grep -aFcHn function lines empty nul plain'],
  ['grep: flags apart', 'grep -a -F -H -n a no-newline'],
  ['grep: none', 'grep -aF absent plain lines'],
  ['grep: everything', 'grep -aFn "" plain empty newlines no-newline'],
  ['grep: a pattern twice in a line', 'grep -aFn ee plain'],
  ['grep: missing file and directory', 'grep -aFHn function plain nope dir'],
  ['grep: not fixed, but plain', 'grep -an words plain'],
  ['grep: no final newline', 'grep -aFn beta no-newline'],
  ['grep: a line of megabytes', 'grep -aFc q longer; grep -aFn q longer | wc -c'],
  ['grep: awkward names', 'grep -aFHn function "with space" "it\'s" ./-dash -- -n \'say "hi"\''],

  ['sort: bytes', 'sort plain; sort no-newline; sort nul; sort binary; sort empty; sort newlines'],
  ['sort: many lines', 'sort lines'],
  ['sort: long lines', 'sort long | wc; sort longer | wc -lc'],
  ['sort: standard input', 'cat lines | sort -r'],
  ['sort: several files', 'sort plain no-newline nul'],
  ['sort: -u', 'sort -u lines; sort -ru numbers'],
  ['sort: -n', 'sort -n numbers; sort -rn numbers; sort -n lines'],
  ['sort: -n -u', 'sort -nu numbers; sort -nru numbers'],
  ['sort: -z', 'sort -z nul; sort -rz nul; cat binary | sort -z'],
  ['sort: missing', 'sort nope; sort plain nope'],
  ['sort: a directory', 'sort dir'],

  ['uniq: -c', 'sort lines | uniq -c'],
  ['uniq: plain', 'uniq newlines; uniq plain; uniq no-newline; sort lines | uniq'],
  ['uniq: unsorted', 'uniq -c lines | sort | head -n 3; uniq -c numbers; uniq -c nul'],
  ['uniq: empty', 'uniq -c empty'],
  ['uniq: long lines', 'uniq -c longer | wc -lc; uniq -c long'],
  ['uniq: missing', 'uniq -c nope'],

  ['ls: here', 'ls'],
  ['ls: -A', 'ls -A dir; ls -1 -A'],
  ['ls: operands', 'ls plain dir empty; ls dir dir/sub; ls empty-dir; ls plain'],
  ['ls: missing', 'ls nope plain'],

  ['cp: a file', 'cp long copy; cat copy | sha256sum; cp plain copy; cat copy'],
  ['cp: into a directory', 'cp plain nul dir/sub; ls dir/sub; cat dir/sub/plain'],
  ['cp: a tree', 'cp -r dir tree; find tree | sort; cat tree/sub/deep/file'],
  ['cp: a tree into a directory', 'cp -r dir empty-dir; find empty-dir -type f | sort'],
  ['cp: contents of a directory', 'cp -r dir/. empty-dir; find empty-dir -type f | sort'],
  ['cp: a trailing slash', 'cp -r dir/ tree; cp -r dir/sub/ empty-dir; find tree empty-dir | sort'],
  ['cp: onto itself', 'cp plain plain; cp plain ./plain; cat plain'],
  ['cp: a directory without -r', 'cp dir tree; ls'],
  ['cp: a directory onto a file', 'cp -r dir plain; cat plain'],
  ['cp: missing', 'cp nope copy; ls; cp plain nope/copy; cp plain nul nope'],

  ['sha256sum: files', 'sha256sum empty plain no-newline nul binary long longer'],
  ['sha256sum: standard input', 'cat lines | sha256sum; sha256sum - < plain'],
  ['sha256sum: an escaped name', 'sha256sum plain "back\\slash"'],
  ['sha256sum: all names', 'find . -type f -print0 | sort -z | xargs -0 sha256sum'],
  ['sha256sum: missing', 'sha256sum plain nope dir; exit'],

  ['sh: lists', 'true && echo a; false && echo b; false || echo c; true || echo d; nope; echo $?'],
  ['sh: lists of pipelines', 'cat plain | wc -l && echo yes | cat || echo no; false; echo $?'],
  ['sh: appending', 'echo a > f; echo b >> f; seq 1 3 >> f; cat f; echo c >> g; cat g'],
  ['sh: standard error', 'ls nope 2> e; wc -l < e; ls nope plain > both 2>&1; wc -l < both'],
  [
    'sh: variables',
    'x=5; y="a  b"; echo $x ${x}y "$y" $y \'$x\' \\$x "$z" $z end; x=$x$x; echo $x',
  ],
  ['sh: variables in pipelines', 'f=plain; n=2; cat $f | head -n $n; echo $f > out; cat out'],
  ['sh: patterns', 'echo *; echo d*/s* p*n nope* "*" \\*; cd dir; echo ../p*; echo */'],
  ['sh: sets in patterns', 'echo [el]*; echo [!a-k]*; echo ?ul; echo [p]lain "[p]lain"'],
  ['sh: in the background', 'seq 1 3 > f & wait; cat f; echo a & wait; echo b'],
  ['sh: a file', 'echo "echo one; exit 3" > s; sh s; echo $?; echo echo two | sh; sh nope'],
  ['sh: standard input by lines', 'seq 1 2 > f; echo "cat f" >> g; echo "echo done" >> g; sh < g'],

  ['mv', 'mv plain p; cat p; mv p dir; ls dir; mv dir/p dir/q nul empty-dir; ls empty-dir plain'],
  [
    'mv: onto others',
    'mv plain nul; cat nul; ls plain; mv dir empty-dir; ls empty-dir/dir; mv nope x',
  ],
  ['mv: into itself', 'mv dir dir/sub/x; ls dir; mv plain dir/sub; ls dir/sub'],
  [
    'ln',
    'ln plain l; rm plain; cat l; ln l l; echo $?; ln nope m; ln dir n; echo more >> l; cat l',
  ],
  [
    'ln: two names',
    'ln plain l; echo x >> l; cat plain; rm l; cat plain; ln -f nul plain; cat plain',
  ],
  ['rm', 'rm plain nope; ls; rm dir; rm -r dir; ls; rm -f nope; echo $?; rm -rf empty-dir nul; ls'],
  ['rmdir, mkdir', 'mkdir a b a; rmdir a dir; ls; mkdir -p c/d/e c; find c; mkdir x/y; rmdir c'],
  ['touch', 'touch new plain; ls new; cat plain; touch -c absent; ls absent; touch x/y'],
  [
    'tail',
    'tail -n 2 plain; tail lines; tail -n +3 plain; tail -n 1 plain no-newline; tail -n 0 nul',
  ],
  ['tail: long', 'tail -n 3 long | wc -c; cat lines | tail -n 5; tail -n 2 newlines; tail nope'],
  ['tee', 'cat plain | tee a b; cat a; cat b; echo x | tee -a a; cat a; echo y | tee nope/x'],
  [
    'cut',
    'cut -d " " -f 1 lines | head -n 3; cut -c 2-4 plain; cut -d o -f 1,3- plain; cut -f 2 plain',
  ],
  [
    'cut: more',
    'cut -s -d a -f -2 lines | head -n 9; cut -c 1,3 no-newline; cut plain; cut -f 0 plain',
  ],
  ['tr', 'cat plain | tr a-z A-Z; cat plain | tr -d aeiou; echo aabbcc | tr -s ab; tr -d x < nul'],
  [
    'tr: sets',
    'cat plain | tr -cd "[:lower:]\\n"; echo a.b | tr . "\\n"; echo xyz | tr xyz a; tr a',
  ],

  ['find: every file', 'find . -type f | sort'],
  ['find: directories', 'find . -type d | sort; find dir -type d | sort'],
  ['find: prefixes', 'find dir/ -type f | sort; find plain dir/sub -type f -print | sort'],
  ['find: both kinds', 'find dir | sort'],
  ['find: -print0', 'find . -type f -print0 | sort -z'],
  ['find: empty', 'find empty-dir -type f -print0'],
  ['find: missing', 'find nope -type f; find plain -type f'],

  ['xargs: items', 'cat items | xargs -n 1 echo'],
  ['xargs: a line', 'cat items | xargs echo a b'],
  ['xargs: default command', 'seq 1 20 | xargs'],
  ['xargs: -n', 'seq 1 10 | xargs -n 3 echo n; seq 1 4 | xargs -n2'],
  ['xargs: no items', 'cat empty | xargs echo none; cat empty | xargs -r echo none'],
  ['xargs: -0', 'find . -type f -print0 | sort -z | xargs -0 -r cat | sha256sum'],
  ['xargs: -0 items as they are', 'cat nul | xargs -0 -n 1 echo'],
  ['xargs: flags of the command', 'seq 1 3 | xargs echo -n -r; seq 1 3 | xargs -r -- echo -n'],
  ['xargs: no input for the command', 'seq 1 3 | xargs -n 1 cat -; seq 1 3 | xargs -n 1 wc -c -'],
  ['xargs: failure', 'seq 1 3 | xargs -n 1 false; echo after; seq 1 3 | xargs -n 1 false'],
  ['xargs: no such command', 'seq 1 3 | xargs -n 1 nosuch'],
  ['xargs: unmatched quote', 'echo "it\'s" | xargs echo'],
  ['xargs: many', 'seq 1 200 | xargs -n 1 echo'],
  ['xargs: many short items', 'seq 1 3000 | xargs echo | wc -wc'],

  ['xargs: many long items', 'cat words | xargs echo | wc -w; cat words | xargs -n 40 true'],

  ['echo', 'echo; echo a  b "c  d"; echo -n x; echo -n y z; echo - --'],
  ['seq', 'seq 3; seq 2 5; seq -2 1; seq 5 2; seq 0; seq 1 20000 | sha256sum'],
  ['seq: not a number', 'seq x'],
  ['head', 'head plain; head -n 2 lines; head -n 0 plain; head -n 1 plain no-newline empty'],
  ['head: standard input', 'cat lines | head -n 19999 | sha256sum; seq 1 100000 | head -n 3'],
  ['head: long lines', 'head -n 1 longer | wc -c; cat longer | head -n2 | wc'],
  ['head: missing', 'head -n 1 nope plain'],
  ['head: a directory', 'head -n 1 dir'],
  ['true', 'true'],
  ['false', 'false'],
  ['sync', 'sync; echo synced'],

  ['sh: separators', 'echo a; echo b\necho c;\n\n  echo d ;echo e'],
  ['sh: comments', 'echo a # b | c\n# all of it\necho d#e'],
  ['sh: quotes', `echo 'a  "b"' "c 'd'" e\\ f 'g'"h"i '' "" \\'j\\'`],
  ['sh: backslash in double quotes', 'echo "a\\"b" "c\\$d" "e\\\nf" g\\\nh'],
  ['sh: a quoted quote', `cat 'it'\\''s'`],
  ['sh: pipeline', 'cat lines | sort | uniq -c | sort -rn | head -n 5 | wc -lc'],
  ['sh: pipeline over lines', 'echo a b |\n\n cat |\ncat'],
  ['sh: status of the last', 'true | false'],
  ['sh: status of the last, not the first', 'false | true'],
  ['sh: not found', 'nosuch; echo after; nosuch'],
  ['sh: not found in a pipeline', 'nosuch | cat; echo a | nosuch'],
  ['sh: redirections', 'cat < plain > out; cat out; sort < lines >out; uniq -c < out | head -n 2'],
  ['sh: redirections in front and together', '< plain > out cat; wc -l out; echo a>out; cat<out'],
  ['sh: standard error', 'cat nope 2> out; wc -l out; cat nope 2>out plain; wc -l out; echo 2 >a'],
  ['sh: a digit that is a word', 'echo 2 > out; cat out; echo "2"> out; cat out'],
  ['sh: only a redirection', '> out; wc -c out; < nope'],
  ['sh: a file that cannot be opened', 'cat < nope; echo after; cat plain > dir; echo a > nope/b'],
  ['sh: cd', 'cd dir; ls; cd sub/deep; cat file; cd ../..; ls; cd ..; ls dir'],
  ['sh: cd to nowhere', 'cd nope; ls dir; cd plain'],
  ['sh: cd in a pipeline stays there', 'cd dir | cat; ls dir'],
  ['sh: exit', 'echo a; exit 3; echo b'],
  ['sh: exit with the last status', 'false; exit'],
  ['sh: exit in a pipeline', 'exit 3 | cat; echo after; echo a | exit 4'],
  ['sh: nothing', ''],
  ['sh: blanks', ' \n\t\n '],
  ['sh: within sh', `sh -c 'echo inner; sh -c "echo \\"in ner\\" | cat"; exit 5'`],
  ['sh: many stages', `echo x${' | cat'.repeat(20)}`],

  ['test: paths', '[ -f plain ]; echo $?; [ -d plain ]; echo $?; test -d dir; echo $?; [ -e no ]'],
  ['test: sizes', 'test -s plain; echo $?; [ -s dir ]; echo $?; [ ! -s no ]; echo $?; [ -s no ]'],
  [
    'test: texts',
    '[ a = a ] && echo 1; [ a != a ] || echo 2; [ -n "" ]; echo $?; [ -z "" ]; echo $?',
  ],
  ['test: words alone', '[ a ]; echo $?; [ "" ]; echo $?; [ ]; echo $?; [ -n ]; echo $?; [ ! ]'],
  [
    'test: numbers',
    '[ 2 -lt 10 ]; echo $?; [ 2 -gt 10 ]; echo $?; [ 07 -eq 7 ]; echo $?; [ 1 -ne 1 ]',
  ],
  ['test: more numbers', '[ -1 -le -1 ]; echo $?; [ 3 -ge 4 ]; echo $?; [ ! 3 -ge 4 ]; echo $?'],
  ['test: no conditions', '[ a -eq 1 ]; echo $?; [ a b ]; echo $?; [ a; echo $?; test a b c d e'],
];

/** What the shell's language, and the programs that go with it, come to. */
const LANGUAGE_TABLE: readonly (readonly [name: string, script: string])[] = [
  [
    'sh: not',
    '! true; echo $?; ! false; echo $?; ! cat nope | wc -l; echo $?; true && ! false && echo y',
  ],
  [
    'sh: if',
    'if true; then echo a; fi; if false; then echo b; else echo c; fi; if false; then echo d\nelif ' +
      'true\nthen echo e; else echo f; fi; if false; then echo g; fi; echo $?',
  ],
  [
    'sh: if of lists',
    'if false; true; then echo a; fi; if cat nope || [ -f plain ]; then wc -l plain; fi',
  ],
  [
    'sh: while, until',
    'i=0; while [ $i -lt 3 ]; do echo $i; i=$((i + 1)); done; until [ $i = 0 ]; do i=$((i-1)); done; echo $i',
  ],
  [
    'sh: break, continue',
    'for i in 1 2 3 4; do [ $i = 2 ] && continue; [ $i = 4 ] && break; echo $i; done; for a in 1 2; do for b ' +
      'in 1 2 3; do [ $b = 2 ] && continue 2; echo $a$b; break 5; done; done; echo end; break; echo $?',
  ],
  [
    'sh: for',
    'for x in a "b c" d*; do echo "<$x>"; done; for x in; do echo no; done; echo $? $x; for x\ndo echo; done',
  ],
  [
    'sh: for over parameters',
    'set -- a "b c" d; for x do echo "$x"; done; for x; do echo $x; done',
  ],
  [
    'sh: groups',
    '{ echo a; echo b; } | sort -r; { cat nope; echo c; } > out 2>&1; wc -l out; { false; }; echo $?',
  ],
  [
    'sh: subshells',
    'x=1; (x=2; cd dir; echo $x; ls; exit 3); echo $? $x; ls dir; (echo a; echo b) | wc -l; (exit 4)',
  ],
  [
    'sh: and lists behind',
    'true && echo a > f & wait; cat f; { echo b; echo c; } > g & wait; cat g; false || (echo d) & wait',
  ],
  [
    'sh: wait for one',
    'sh -c "exit 3" & wait $!; echo $?; (exit 4) & p=$!; wait; wait $p; echo $?; wait 63; echo $?',
  ],
  ['sh: nothing to read behind', 'echo x | { cat & wait; }'],
  [
    'sh: case',
    'for x in a bc "" "*" z/z; do case $x in a) echo one;; b*|c) echo two ;; "") echo none;; "*") echo star;; ' +
      '(*) echo other; esac; done; case x in y) echo;; esac; echo $?; case x in x) false;; esac; echo $?',
  ],
  [
    'sh: what commands print',
    'x=$(seq 1 3); echo $x "$x"; echo a$(echo b; echo)c"$(echo d  e)"; echo $(cat nope)$(echo f)',
  ],
  [
    'sh: commands within commands',
    'echo $(echo $(echo a) "$(echo "b  c")") "$(echo ")")"; x=$(false); echo $?; x=$(cat < plain | wc -l); echo $x',
  ],
  [
    'sh: a command that is printed',
    '$(echo echo) a; x=wc; $x -l plain; y="-l plain"; wc $y; $(true) echo b; "cat" no-newline; l*s; $nope',
  ],
  [
    'sh: here-documents',
    'x=1; cat <<E\n$x $((x+1)) $(echo c) \\$x "q" \\"\nE\ncat <<\'E\' | tr a b\na $x\nE\ncat <<-E - plain\n\tta\tb\n\tE\necho end',
  ],
  [
    'sh: two of them, and in a list',
    'cat <<A; cat <<B\na\nA\nb\nB\nwhile read x; do echo "<$x>"; done <<E\n1\n2 3\nE\n{ cat <<E; } | wc -l\none\ntwo\nE\n' +
      'x=$(cat <<E\nin\nE\n); echo $x',
  ],
  [
    'sh: parameters',
    'echo $# $0 "$1"; set -- a "b  c" "" d; echo $# $1 "$2" $3 "$4$5"; for x in "$@"; do echo "<$x>"; done; for x in $*; ' +
      'do echo "<$x>"; done; echo "$*" "x$@y"; shift 2; echo $# "$1"; shift 3; echo $?; set --; echo $#',
  ],
  [
    'sh: given parameters',
    'sh -c \'echo $0 $1 "$@" $#\' name a "b c"; echo \'echo $0 $2\' > s; sh s x y; sh -c \'set -- "$@"; echo $#\'',
  ],
  ['sh: more than nine', 'set -- 1 2 3 4 5 6 7 8 9 ten; echo $10 ${10} ${11}'],
  [
    'sh: values otherwise',
    'a=1; b=; echo ${a:-x} ${b:-y} ${b-z} ${c-d e} "${c:-f  g}" ${a:+h} ${b:+i} ${b+j}; echo ${c:=k} $c ${#a} ${#nope} ${c}l',
  ],
  [
    'sh: sums',
    'x=7; echo $((x*2+1)) $(( -x / 2 )) $((x%3)) $((1<2)) $((2 | 1 || 1)); echo $(( (x+1)*2 )) $((0x1f)) $((010)) $((nope)) $(($x<<2))',
  ],
  [
    'sh: more sums',
    'echo $((1 ? 2 : 3)) $((!5)) $((~5)) $((5 & 3 | 8 ^ 1)) $((1 && 0)) $((0 && 1/0)) $((9223372036854775807 + 1)) $((3 >= 3 == 1))',
  ],
  ['sh: no sums', "sh -c 'echo $((1/0)); echo a'; echo $?; sh -c 'echo $((1 +)); echo a'; echo $?"],
  [
    'sh: read',
    'while read a b; do echo "[$a] [$b]"; done < plain; echo "  x   y z  " | { read a b; echo "[$a][$b]"; read a; echo $? "[$a]"; }',
  ],
  [
    'sh: read, and what is left',
    '{ read x; echo "<$x>"; cat; } < plain; seq 1 3 | { read x; echo $x; wc -l; }; read x < no-newline; echo $? $x; read -r x < "back\\slash"; echo $?',
  ],
  [
    'sh: read with backslashes',
    'echo \'a\\ b c\\\nd\' | { read x y; echo "[$x][$y]"; }; printf %s\\n \'a\\b\' | { read -r x; printf "%s\\n" "$x"; }',
  ],
  [
    'sh: redirections of lists',
    'for i in 1 2; do echo $i; cat; done < plain > out; cat out; if true; then echo a; fi > b; cat b; { cat nope; } 2> e; wc -l < e',
  ],
  [
    'sh: redirections within others',
    '{ echo a; { echo b; echo c >&2; } > in; echo d; } > out 2>&1; cat in; echo -; cat out; cd dir > /dev/null; ls',
  ],
  [
    'sh: exec',
    '(exec echo a; echo no); (exec > out; echo b; ls dir); cat out; (exec nosuch; echo no); echo $?',
  ],
  [
    'sh: eval',
    'x=echo; eval "$x a; y=2"; echo $y; eval; echo $?; eval "false"; echo $?; echo "z=3" > s; . ./s; echo $z',
  ],
  ['sh: unset, nothing', 'x=1; unset x; echo "<$x>"; : a b; echo $?; unset nope; echo $?'],
  ['sh: syntax within eval', 'eval "if"; echo no'],
  [
    'sh: a list over lines',
    'for i in a b\ndo\n  if [ $i = a ]\n  then\n    echo $i # one\n  else echo other\n  fi\ndone |\n sort',
  ],
  [
    'sh: by lines, lists',
    'echo "for i in 1 2; do" > s; echo "echo \\$i" >> s; echo "done; read x" >> s; echo "input" >> s; echo "echo <\\$x>" >> s; sh < s',
  ],
  [
    'sh: words that are reserved elsewhere',
    'echo if then fi do done { } ! case esac for in; x=if; echo $x',
  ],

  [
    'environment',
    "x=1; export x y=2; sh -c 'echo $x $y $z'; z=3 sh -c 'echo $x $z'; echo \"<$z>\"; unset x; sh -c 'echo \"<$x>\"'",
  ],
  [
    'environment: env',
    'a=1 env | grep -aF a=; env -i b=2 c="3 4" env; env -i sh -c \'echo "<$b>"\'; b=1 env -u b env | grep -aFc b=1; env nosuch; echo $?',
  ],
  [
    'environment: through others',
    "export v=1; echo x | xargs sh -c 'echo $v \"$@\"' s; (v=2; sh -c 'echo $v'); v=3; sh -c 'echo $v' | cat",
  ],

  [
    'test: and, or',
    '[ a = a -a b = b ]; echo $?; [ a = b -o b = b ]; echo $?; [ a = b -o b = b -a c = d ]; echo $?; [ ! a = a -o x ]; echo $?',
  ],
  [
    'test: not, and parentheses',
    '[ ! a ]; echo $?; [ ! "" ]; echo $?; [ ! ! a ]; echo $?; [ ! -f plain -a a ]; echo $?; [ \\( a \\) ]; echo $?; [ \\( a = b -o c \\) -a d ]; echo $?',
  ],
  [
    'test: words that are operators',
    '[ = ]; echo $?; [ = = = ]; echo $?; [ -a ]; echo $?; [ -n = -n ]; echo $?; [ ! = ! ]; echo $?; [ -f = x ]; echo $?; [ -z ]; echo $?',
  ],
  [
    'test: more paths',
    '[ -r plain ]; echo $?; [ -w plain -a -x dir ]; echo $?; [ -x plain ]; echo $?; [ -r nope ]; echo $?',
  ],

  ['pwd', 'cd dir/sub; [ "$(pwd)" = "$(cd ../..; pwd)/dir/sub" ]; echo $?; cd /; pwd'],
  [
    'printf',
    'printf "%s-%s\\n" a b c; printf "%d %5d|%-5d|%05d\\n" 1 -2 3 4; printf "%x %o %c%%\\n" 255 8 xyz; printf "a\\tb\\\\n"; printf "%5s|%-5s|%.2s\\n" ab cd efg',
  ],
  ['sleep', 'sleep 0 .0 0s; echo $?; sleep x; echo $?; sleep; echo $?; sleep -- 0; echo $?'],
];

const onTree = (table: typeof TABLE): readonly Case[] =>
  table.map(([name, script]) => ({ name, script, files: AWKWARD }));
export const CASES = onTree(TABLE);
export const LANGUAGE = onTree(LANGUAGE_TABLE);
