//! Things by their number, of a range of numbers that only moves up: a deque with places that are empty.

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Sliding<T> {
    /// The number of the first place.
    first: usize,
    places: VecDeque<Option<T>>,
}

impl<T> Default for Sliding<T> {
    fn default() -> Self {
        Self { first: 0, places: VecDeque::new() }
    }
}

impl<T> Sliding<T> {
    /// Puts `value` at `number`, which is not below the range.
    pub(super) fn put(&mut self, number: usize, value: T) {
        let at = number - self.first;
        if at >= self.places.len() {
            self.places.resize_with(at, || None);
            self.places.push_back(Some(value));
        } else {
            self.places[at] = Some(value);
        }
    }

    /// Takes what is at the first number of the range, which then begins behind it; `None` if nothing is there yet.
    pub(super) fn pop_first(&mut self) -> Option<T> {
        let value = self.places.pop_front_if(|place| place.is_some())??;
        self.first += 1;
        Some(value)
    }

    /// Takes what is at `number`. The range then begins with what is left: nothing is put before that any more.
    pub(super) fn take(&mut self, number: usize) -> Option<T> {
        let value = self.places.get_mut(number.checked_sub(self.first)?)?.take();
        while self.places.pop_front_if(|place| place.is_none()).is_some() {
            self.first += 1;
        }
        value
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_any_order_leaves_in_that_of_the_numbers() {
        let mut early = Sliding::default();
        for (number, leaves) in [(1, vec![]), (3, vec![]), (0, vec![0, 1]), (2, vec![2, 3]), (4, vec![4])] {
            early.put(number, number);
            assert_eq!(std::iter::from_fn(|| early.pop_first()).collect::<Vec<_>>(), leaves);
        }
        assert!(early.places.is_empty());
    }

    #[test]
    fn what_is_taken_out_of_the_middle_leaves_a_place_until_all_before_it_is() {
        let mut under_way = Sliding::default();
        (0..5).for_each(|number| under_way.put(number, number));
        assert_eq!([3, 0, 3, 9].map(|number| under_way.take(number)), [Some(3), Some(0), None, None]);
        assert_eq!((under_way.values().collect::<Vec<_>>(), under_way.places.len()), (vec![&1, &2, &4], 4));
        assert_eq!([1, 0, 2].map(|number| under_way.take(number)), [Some(1), None, Some(2)]);
        assert_eq!((under_way.places.len(), under_way.take(4)), (1, Some(4)));
        under_way.put(5, 5);
        assert_eq!((under_way.places.len(), under_way.take(5)), (1, Some(5)));
    }
}
