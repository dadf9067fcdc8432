//! Sorting where time doesn't count: one body for elements of all types. Each type and order that the standard library
//! sorts by is code of its own, some six kilobytes of it.
//! Elements that are equal keep their order.

use std::cmp::Ordering;

/// Sorts by a comparison.
pub(crate) fn by<T>(list: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut places = places(list.len(), &|a, b| compare(&list[a], &list[b]));
    for i in 0..list.len() {
        while places[i] != i {
            let place = places[i];
            list.swap(i, place);
            places.swap(i, place);
        }
    }
}

/// Sorts by a key.
pub(crate) fn by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    by(list, |a, b| key(a).cmp(&key(b)));
}

/// Sorts numbers of elements, without memory of its own; equal ones come in any order.
pub(crate) fn numbers(list: &mut [u32], compare: &dyn Fn(u32, u32) -> Ordering) {
    list.sort_unstable_by(|&a, &b| compare(a, b));
}

/// The place of each element in the sorted list.
fn places(len: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.sort_by(|&a, &b| compare(a, b));
    let mut places = vec![0; len];
    order.iter().enumerate().for_each(|(place, &element)| places[element] = place);
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_the_standard_library_sorts(keys in proptest::collection::vec(0u8..20, 0..200)) {
            let list: Vec<(u8, usize)> = keys.into_iter().zip(0..).collect();
            let (mut wanted, mut by, mut by_key) = (list.clone(), list.clone(), list.clone());
            wanted.sort_by_key(|&(key, _)| std::cmp::Reverse(key));
            super::by(&mut by, |a, b| b.0.cmp(&a.0));
            super::by_key(&mut by_key, |&(key, _)| std::cmp::Reverse(key));
            prop_assert_eq!(&by, &wanted);
            prop_assert_eq!(&by_key, &wanted);
            let mut numbers: Vec<u32> = (0..list.len() as u32).collect();
            super::numbers(&mut numbers, &|a, b| list[b as usize].cmp(&list[a as usize]));
            let sorted = numbers.iter().map(|&i| list[i as usize]);
            prop_assert!(sorted.is_sorted_by(|a, b| a >= b));
        }
    }
}
