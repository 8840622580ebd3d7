/** Programs for the Lisp: each makes much garbage, or keeps much and changes it. */

/** Ways to put n queens on a board: lists without end, and nothing is kept. */
const QUEENS = `
  (define (append a b) (if (null? a) b (cons (car a) (append (cdr a) b))))
  (define (safe? row distance placed)
    (cond ((null? placed) true)
          ((= (car placed) row) false)
          ((= (car placed) (+ row distance)) false)
          ((= (car placed) (- row distance)) false)
          (else (safe? row (+ distance 1) (cdr placed)))))
  (define (rows n placed)
    (cond ((= n 0) nil)
          ((safe? n 1 placed) (append (rows (- n 1) placed) (cons n nil)))
          (else (rows (- n 1) placed))))
  (define (count all size left)
    (if (null? all) 0 (+ (car all) (count (cdr all) size left))))
  (define (each rows placed size left)
    (if (null? rows) nil
        (cons (place (cons (car rows) placed) size (- left 1))
              (each (cdr rows) placed size left))))
  (define (place placed size left)
    (if (= left 0) 1 (count (each (rows size placed) placed size left) size left)))
  (define (queens n) (place nil n n))
`;

/** A search tree that grows by changing its leaves: old pairs that point to new ones. */
const TREE = `
  (define seed 1)
  (define (random) (set! seed (remainder (+ (* seed 1103) 12345) 65536)) seed)
  (define (node key) (cons key (cons nil nil)))
  (define (insert tree key)
    (cond ((= key (car tree)) tree)
          ((< key (car tree))
           (if (null? (car (cdr tree)))
               (set-car! (cdr tree) (node key))
               (insert (car (cdr tree)) key)))
          ((null? (cdr (cdr tree))) (set-cdr! (cdr tree) (node key)))
          (else (insert (cdr (cdr tree)) key))))
  (define (grow tree n) (if (= n 0) tree (begin (insert tree (random)) (grow tree (- n 1)))))
  (define (walk tree done)
    (if (null? tree) done
        (walk (car (cdr tree)) (cons (car tree) (walk (cdr (cdr tree)) done)))))
  (define (rising? list)
    (cond ((null? (cdr list)) true)
          ((< (car list) (car (cdr list))) (rising? (cdr list)))
          (else false)))
  (define (sum list total)
    (if (null? list) total (sum (cdr list) (remainder (+ total (car list)) 100003))))
  (define (sorted n)
    (let ((list (walk (grow (node 32768) n) nil)))
      (cons (rising? list) (cons (sum list 0) nil))))
`;

/** A queue of a fixed length, through which many pass: its tail is changed each time. */
const QUEUE = `
  (define (link n) (cons n nil))
  (define queue (let ((first (link 0))) (cons first first)))
  (define (enter n)
    (let ((new (link n))) (begin (set-cdr! (cdr queue) new) (set-cdr! queue new))))
  (define (leave)
    (let ((value (car (car queue)))) (begin (set-car! queue (cdr (car queue))) value)))
  (define (fill n) (if (= n 0) nil (begin (enter n) (fill (- n 1)))))
  (define (pass n total)
    (if (= n 0) total
        (begin (enter n) (pass (- n 1) (remainder (+ total (leave)) 100003)))))
`;

export interface LispProgram {
  readonly name: string;
  readonly text: string;
}

/** Each prints one line. */
export const PROGRAMS: readonly LispProgram[] = [
  { name: 'queens', text: `${QUEENS}(cons (queens 4) (cons (queens 5) nil))` },
  { name: 'tree', text: `${TREE}(sorted 500)` },
  { name: 'queue', text: `${QUEUE}(fill 500)(pass 3000 0)` },
];
