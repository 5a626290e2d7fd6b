//! The middle of measurements.

/// Puts the numbers in order and returns the middle one, of two the greater; 0 for none.
///
/// By insertion: they are few and mostly alike, and the sorts of `core` make the image 6 KB larger.
pub(crate) fn median(numbers: &mut [i64]) -> i64 {
    for end in 1..=numbers.len() {
        let mut sorted = numbers.get_mut(..end).unwrap_or_default().iter_mut().rev();
        let mut last = sorted.next();
        while let (Some(number), Some(before)) = (last, sorted.next()) {
            if *before <= *number {
                break;
            }
            core::mem::swap(before, number);
            last = Some(before);
        }
    }
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_in_the_middle_and_all_are_in_order() {
        assert_eq!(median(&mut []), 0);
        assert_eq!(median(&mut [7]), 7);
        assert_eq!(median(&mut [9, 4]), 9);
        let mut numbers = [5, 3, i64::MAX, 3, 0, -1, 8, 8, i64::MIN];
        assert_eq!(median(&mut numbers), 3);
        assert!(numbers.is_sorted());
        // A generator of Lehmer's: anything but sorted.
        let mut number = 1;
        let mut many: [i64; 256] = core::array::from_fn(|_| {
            number = number * 75 % 65_537;
            number - 32_768
        });
        assert_eq!(median(&mut many), many[128]);
        assert!(many.is_sorted());
    }
}
