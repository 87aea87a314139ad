//! A shorter list on which the same still fails: first the shortest beginning, by bisection, then without
//! ever smaller pieces, down to single ones.

/// Lists that are tried at most. A run of the simulation takes some tenths of a second.
pub const MOST_TRIES: u32 = 4_000;

/// `list` fails; so does what is returned. Unless the tries ran out, it fails no more if any one is left out.
pub fn shorten<T: Clone>(
    list: &[T],
    most_tries: u32,
    mut still_fails: impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    let mut tries = 0;
    let mut fails = |list: &[T]| {
        tries += 1;
        tries <= most_tries && still_fails(list)
    };
    let mut list = shortest_beginning(list, &mut fails);
    let mut size = list.len().div_ceil(2);
    while size > 0 && !list.is_empty() {
        let shorter = without_pieces(list.clone(), size, &mut fails);
        let is_done = size == 1 && shorter.len() == list.len();
        list = shorter;
        size = if is_done { 0 } else { (size / 2).max(1) };
    }
    list
}

fn shortest_beginning<T: Clone>(list: &[T], fails: &mut impl FnMut(&[T]) -> bool) -> Vec<T> {
    let (mut passing, mut failing) = (0, list.len());
    while failing - passing > 1 {
        let middle = passing.midpoint(failing);
        if fails(&list[..middle]) {
            failing = middle;
        } else {
            passing = middle;
        }
    }
    list[..failing].to_vec()
}

/// Leaves out each piece of that size without which it still fails, the last first: what comes later
/// rests on what came before.
fn without_pieces<T: Clone>(
    mut list: Vec<T>,
    size: usize,
    fails: &mut impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    let mut end = list.len();
    while end > 0 {
        let begin = end.saturating_sub(size);
        let rest = [&list[..begin], &list[end..]].concat();
        if fails(&rest) {
            list = rest;
        }
        end = begin;
    }
    list
}

#[test]
fn what_fails_is_shortened_to_what_it_takes() {
    let all: Vec<u32> = (0..1_000).collect();
    let needs = |wanted: &'static [u32]| {
        move |list: &[u32]| wanted.iter().all(|number| list.contains(number))
    };
    for wanted in [&[0][..], &[999], &[17, 18], &[3, 500, 501, 998]] {
        assert_eq!(shorten(&all, MOST_TRIES, needs(wanted)), wanted);
    }
    // Any three of them: it stops at three.
    assert_eq!(shorten(&all, MOST_TRIES, |list| list.len() >= 3).len(), 3);
    // Some are needed only while others are there.
    let paired = |list: &[u32]| list.contains(&700) && (list.contains(&10) == list.contains(&20));
    assert_eq!(shorten(&all, MOST_TRIES, paired), [700]);
}

#[test]
fn without_tries_left_what_failed_last_is_returned() {
    let all: Vec<u32> = (0..1_000).collect();
    let mut tried = 0;
    let shorter = shorten(&all, 12, |list| {
        tried += 1;
        list.contains(&1) && list.contains(&900)
    });
    assert_eq!(tried, 12);
    assert!(shorter.contains(&1) && shorter.contains(&900) && shorter.len() < 1_000);
}
