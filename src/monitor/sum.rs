//! Sums that do not depend on the order of their terms.
//!
//! A [`Sum`] is a 192-bit integer in units of 2^-96. A term is rounded to that unit once, by
//! itself; from there on everything is integer arithmetic, which is exact and associative. So two
//! sums can be merged, their terms can come in any order and from any thread, and the bits are the
//! same. A running f64 mean (Welford, Chan) has none of that.
//!
//! f32 values of magnitude 2^-72 and above, and their squares from 2^-24 on, are exact; smaller
//! ones lose what lies below 2^-97. Terms must be below [`LIMIT`]; 2^32 of them cannot overflow.

/// Terms of this magnitude and beyond are refused.
pub(super) const LIMIT: f64 = 4_611_686_018_427_387_904.0; // 2^62
/// Fractional bits of a sum.
const FRACTION: i32 = 96;

/// A sum, exact in units of 2^-96.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Two's complement, least significant first.
    words: [u64; 3],
}

impl Sum {
    /// Adds a term below [`LIMIT`]; anything else (NaN, infinities) is 0.
    pub(crate) fn add(&mut self, term: f64) {
        self.merge(Self::of(term));
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: Sum) {
        let mut carry = false;
        for (word, other) in self.words.iter_mut().zip(other.words) {
            let (sum, first) = word.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *word = sum;
            carry = first | second;
        }
    }

    /// Takes another sum away.
    pub(crate) fn take(&mut self, other: Sum) {
        self.merge(other.negated());
    }

    fn negated(self) -> Sum {
        let mut sum = Sum {
            words: self.words.map(|word| !word),
        };
        sum.merge(Sum { words: [1, 0, 0] });
        sum
    }

    /// One term, rounded to the unit, half away from zero.
    pub(crate) fn of(term: f64) -> Sum {
        if term.is_nan() || term.abs() >= LIMIT {
            return Sum::default();
        }
        let bits = term.to_bits();
        let exponent = (bits >> 52 & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        // Subnormal terms are far below the unit.
        let mantissa = if exponent == 0 { 0 } else { fraction | 1 << 52 };
        // term = mantissa * 2^(exponent - 1075)
        let shift = exponent - 1075 + FRACTION;
        let magnitude = if shift >= 0 {
            let (word, bit) = ((shift / 64) as usize, shift as u32 % 64);
            let mut words = [0; 3];
            let wide = u128::from(mantissa) << bit;
            if let Some(low) = words.get_mut(word) {
                *low = wide as u64;
            }
            if let Some(high) = words.get_mut(word + 1) {
                *high = (wide >> 64) as u64;
            }
            Sum { words }
        } else {
            let right = (-shift) as u32;
            let rounded = match right {
                1..=54 => (mantissa + (1 << (right - 1))) >> right,
                _ => 0,
            };
            Sum {
                words: [rounded, 0, 0],
            }
        };
        match bits >> 63 {
            0 => magnitude,
            _ => magnitude.negated(),
        }
    }

    fn is_negative(self) -> bool {
        self.words[2] >> 63 == 1
    }

    fn magnitude(self) -> [u64; 3] {
        match self.is_negative() {
            true => self.negated().words,
            false => self.words,
        }
    }

    /// The nearest f64.
    pub(crate) fn value(self) -> f64 {
        let value = to_f64(&self.magnitude(), -FRACTION);
        match self.is_negative() {
            true => -value,
            false => value,
        }
    }

    /// `count * squares - self^2`, which is `count^2` times the variance: formed exactly, rounded
    /// once, never negative but by the rounding of the terms.
    pub(crate) fn spread(self, squares: Sum, count: u64) -> f64 {
        // In units of 2^-192: count * squares * 2^96 against self^2.
        let mut left = [0; 7];
        multiply(
            &squares.magnitude(),
            &[0, u64::from(u32::MAX) + 1],
            &mut left,
        );
        let mut scaled = [0; 8];
        multiply(&left, &[count], &mut scaled);
        let mut right = [0; 8];
        let magnitude = self.magnitude();
        multiply(&magnitude, &magnitude, &mut right);
        difference(&scaled, &right)
    }

    /// `count * products - self * other`, which is `count^2` times the covariance.
    pub(crate) fn joint_spread(self, other: Sum, products: Sum, count: u64) -> f64 {
        let mut left = [0; 7];
        multiply(
            &products.magnitude(),
            &[0, u64::from(u32::MAX) + 1],
            &mut left,
        );
        let mut scaled = [0; 8];
        multiply(&left, &[count], &mut scaled);
        let mut right = [0; 8];
        multiply(&self.magnitude(), &other.magnitude(), &mut right);
        let negative = products.is_negative();
        match negative == (self.is_negative() != other.is_negative()) {
            true if negative => -difference(&scaled, &right),
            true => difference(&scaled, &right),
            false => {
                let sum = total(&scaled, &right);
                if negative { -sum } else { sum }
            }
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (eight, word) in bytes.chunks_exact_mut(8).zip(self.words) {
            eight.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) const fn from_words(words: [u64; 3]) -> Sum {
        Sum { words }
    }
}

/// `out = a * b`, least significant first; `out` has room for both.
fn multiply(a: &[u64], b: &[u64], out: &mut [u64]) {
    out.fill(0);
    for (i, &a) in a.iter().enumerate() {
        let mut carry = 0u128;
        for (j, &b) in b.iter().enumerate() {
            if let Some(word) = out.get_mut(i + j) {
                let sum = u128::from(*word) + u128::from(a) * u128::from(b) + carry;
                *word = sum as u64;
                carry = sum >> 64;
            }
        }
        for word in out.iter_mut().skip(i + b.len()) {
            let sum = u128::from(*word) + carry;
            *word = sum as u64;
            carry = sum >> 64;
        }
    }
}

/// `a - b` in units of 2^-192, as f64.
fn difference(a: &[u64; 8], b: &[u64; 8]) -> f64 {
    let less = a.iter().rev().lt(b.iter().rev());
    let (large, small) = if less { (b, a) } else { (a, b) };
    let mut out = [0; 8];
    let mut borrow = false;
    for ((out, large), small) in out.iter_mut().zip(large).zip(small) {
        let (word, first) = large.overflowing_sub(*small);
        let (word, second) = word.overflowing_sub(u64::from(borrow));
        *out = word;
        borrow = first | second;
    }
    let value = to_f64(&out, -2 * FRACTION);
    if less { -value } else { value }
}

/// `a + b` in units of 2^-192, as f64.
fn total(a: &[u64; 8], b: &[u64; 8]) -> f64 {
    let mut out = [0; 8];
    let mut carry = false;
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        let (word, first) = a.overflowing_add(*b);
        let (word, second) = word.overflowing_add(u64::from(carry));
        *out = word;
        carry = first | second;
    }
    to_f64(&out, -2 * FRACTION)
}

/// `words * 2^exponent`, rounded once (to nearest, ties to even).
fn to_f64(words: &[u64], exponent: i32) -> f64 {
    let Some(top) = words.iter().rposition(|&word| word != 0) else {
        return 0.0;
    };
    let word = |at: Option<usize>| at.and_then(|at| words.get(at)).copied().unwrap_or(0);
    let (high, low) = (word(Some(top)), word(top.checked_sub(1)));
    let shift = high.leading_zeros();
    let wide = (u128::from(high) << 64 | u128::from(low)) << shift;
    // 64 bits with the first one set; whatever lies below only breaks ties.
    let below = wide as u64 != 0 || (0..top.saturating_sub(1)).any(|at| word(Some(at)) != 0);
    let leading = (wide >> 64) as u64 | u64::from(below);
    // The conversion rounds 64 bits to 53 with the sticky last bit in place.
    let mantissa = leading as f64;
    libm::scalbn(mantissa, exponent + 64 * top as i32 - shift as i32)
}

#[cfg(test)]
mod tests {
    use super::{LIMIT, Sum};
    use alloc::vec::Vec;

    #[test]
    fn single_terms_come_back() {
        let terms = [
            0.0,
            1.0,
            -1.0,
            0.1,
            -3.5e-20,
            1e18,
            -1e18,
            4.6e18,
            2f64.powi(-72),
            123456.789,
        ];
        for term in terms {
            assert!(
                (Sum::of(term).value() - term).abs() <= 2f64.powi(-97),
                "{term}"
            );
        }
        assert_eq!(Sum::of(2f64.powi(-97)).value(), 2f64.powi(-96));
        assert_eq!(Sum::of(2f64.powi(-98)).value(), 0.0);
        assert_eq!(Sum::of(-0.1).value(), -0.1);
        assert_eq!(Sum::of(LIMIT), Sum::default());
        assert_eq!(Sum::of(f64::NAN), Sum::default());
        assert_eq!(Sum::of(f64::NEG_INFINITY), Sum::default());
    }

    #[test]
    fn order_does_not_matter_and_taking_undoes_adding() {
        let terms: Vec<f64> = (0..1000)
            .map(|i| (f64::from(i * 7919 % 1000) - 500.0) * 10f64.powi(i % 30 - 15))
            .collect();
        let (mut forward, mut backward) = (Sum::default(), Sum::default());
        for term in &terms {
            forward.add(*term);
        }
        for term in terms.iter().rev() {
            backward.add(*term);
        }
        assert_eq!(forward, backward);
        for term in &terms {
            forward.take(Sum::of(*term));
        }
        assert_eq!(forward, Sum::default());
    }

    #[test]
    fn spreads_do_not_cancel() {
        // A mean of a million, a deviation of a thousandth.
        let (mut sum, mut squares) = (Sum::default(), Sum::default());
        for i in 0..1000 {
            let x = 1e6 + f64::from(i % 2) * 0.0009765625;
            sum.add(x);
            squares.add(x * x);
        }
        let variance = sum.spread(squares, 1000) / 1e6;
        let expected = (0.0009765625f64 / 2.0).powi(2);
        // x^2 was rounded to f64 once: 2^-13 at 1e12.
        assert!((variance - expected).abs() < 2e-4, "{variance} {expected}");
        let (mut x, mut xx) = (Sum::default(), Sum::default());
        for i in 0..1000 {
            x.add(f64::from(i % 2) + 3.0);
            xx.add((f64::from(i % 2) + 3.0).powi(2));
        }
        assert_eq!(x.spread(xx, 1000) / 1e6, 0.25);
        assert_eq!(x.joint_spread(x, xx, 1000) / 1e6, 0.25);
        let mut y = Sum::default();
        y.take(x);
        let mut xy = Sum::default();
        xy.take(xx);
        assert_eq!(x.joint_spread(y, xy, 1000) / 1e6, -0.25);
    }
}
