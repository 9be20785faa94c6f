//! Arithmetic on samples.

/// A sample of one figure, in order.
#[derive(Debug, Clone)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }

    /// The value that `percent` of the sample do not exceed (nearest rank); NaN of nothing.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.percentile(100.0)
    }

    pub(crate) fn min(&self) -> f64 {
        self.percentile(0.0)
    }
}

/// Two proportions held against each other: z and the two-sided p, with the pooled variance. Nothing
/// when neither or all of both is lost.
pub(crate) fn two_proportions(one: (u64, u64), other: (u64, u64)) -> Option<(f64, f64)> {
    let [(x1, n1), (x2, n2)] = [one, other].map(|(x, n)| (x as f64, n as f64));
    let pooled = (x1 + x2) / (n1 + n2);
    let error = (pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2)).sqrt();
    let z = (x1 / n1 - x2 / n2) / error;
    z.is_finite().then(|| {
        (
            z,
            error_function_complement(z.abs() / std::f64::consts::SQRT_2),
        )
    })
}

/// Abramowitz and Stegun, 7.1.26: off by at most 1.5e-7.
fn error_function_complement(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [
        0.254_829_592,
        -0.284_496_736,
        1.421_413_741,
        -1.453_152_027,
        1.061_405_429,
    ];
    let sum = terms.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    sum * (-x * x).exp()
}
