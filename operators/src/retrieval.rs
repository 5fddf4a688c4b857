//! What memories read back: the retrieval SNR of the associative-memory view (arXiv 2505.19488).
//!
//! Every memory here is linear in what it stored: a read is ŷ_i = Σ_j A_ij v_j. Asked with the stored key of pair i it is
//! A_ii v_i, what was asked for, plus what the other pairs add. Asked with the queries of the model there is no one pair that
//! was meant; the one of which a query reads most stands for it.

use tch::{Kind, Tensor};

/// The reads of a memory.
#[derive(Debug)]
pub struct Retrieval {
    /// A, the weight of each stored value j in read i; zero where the memory does not hold j, or not yet. `[B, H, R, N]`
    pub weights: Tensor,
    /// The stored values. `[B, H, N, V]`
    pub values: Tensor,
}

/// What a memory is asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// After all positions with the key of every pair: as many reads as pairs.
    Keys,
    /// At every position with its own query, of what it then holds: the reads that the mixer itself makes.
    Queries,
}

/// What one memory gave back.
#[derive(Debug, Clone, PartialEq)]
pub struct Reads {
    /// The SNR of reads with stored keys, (pairs, SNR), pairs rising.
    pub keys: Vec<(i64, f64)>,
    /// That of reads with queries, by the pairs that the last of them had before it.
    pub queries: Vec<(i64, f64)>,
    /// The last SNR of `keys` in each sequence.
    pub by_sequence: Vec<f64>,
}

/// What the memories of a layer gave back; none where there is none that is read by keys.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReads {
    /// The mixer's, whose pairs are what it read of the text.
    pub mixer: Option<Reads>,
    /// The feed-forward network's, whose pairs are its weights.
    pub ffn: Option<Reads>,
}

/// A memory that reads this well is exact for every use; the bound keeps the number finite.
pub const LARGEST_SNR: f64 = 1e9;

impl Retrieval {
    /// Pairs that were stored: positions, or steps of them where a position stores several.
    pub fn pairs(&self) -> i64 {
        self.values.size()[2]
    }

    /// Of reads with stored keys E[A_ii² ‖v_i‖²] / E[‖r_i‖²] over pairs, heads and sequences.
    ///
    /// The paper has the mean of the ratios, which a few values near zero, or one forgotten pair, make infinite; the ratio
    /// of the means equals it for values of one length and stays a number.
    pub fn snr(&self) -> f64 {
        let [signal, noise] = self.of_own().map(|power| sum(&power));
        ratio(signal, noise)
    }

    /// The same in each sequence.
    pub fn snr_by_sequence(&self) -> Vec<f64> {
        let [signal, noise] = self.of_own();
        let each = |power: &Tensor| power.unbind(0).iter().map(sum).collect::<Vec<f64>>();
        each(&signal).into_iter().zip(each(&noise)).map(|(s, n)| ratio(s, n)).collect()
    }

    /// Of any reads: the power of the pair of which each reads most, over that of all others together.
    pub fn peak_snr(&self) -> f64 {
        let (weights, values) = self.wide();
        let lengths = values.square().sum_dim_intlist(-1, false, Kind::Double); // [B, H, N]
        let powers = weights.square() * lengths.unsqueeze(2); // [B, H, R, N]
        let (signal, most) = powers.max_dim(-1, true); // [B, H, R, 1]
        let width = values.size()[3];
        let index = most.expand([-1, -1, -1, width], false);
        let own = weights.gather(-1, &most, false) * values.gather(2, &index, false); // [B, H, R, V]
        let rest = weights.matmul(&values) - own;
        ratio(sum(&signal), sum(&rest.square()))
    }

    /// The reads from `first` on, `count` of them.
    #[must_use]
    pub fn between(&self, first: i64, count: i64) -> Self {
        let weights = self.weights.narrow(2, first, count);
        Self { weights, values: self.values.shallow_clone() }
    }

    fn wide(&self) -> (Tensor, Tensor) {
        (self.weights.to_kind(Kind::Double), self.values.to_kind(Kind::Double))
    }

    /// Of reads with stored keys the powers of what was asked for and of the rest, `[B, H, N, V]`.
    fn of_own(&self) -> [Tensor; 2] {
        let (weights, values) = self.wide();
        let own = weights.diagonal(0, -2, -1).unsqueeze(-1) * &values;
        let rest = weights.matmul(&values) - &own;
        [own.square(), rest.square()]
    }
}

impl Reads {
    /// Of a memory that `read` asks about the first n positions of a sequence of so many, for each n of `positions`.
    pub(crate) fn of_positions(
        positions: &[i64],
        read: impl Fn(i64, Asked) -> Option<Retrieval>,
    ) -> Option<Self> {
        let mut keys = Vec::with_capacity(positions.len());
        let mut by_sequence = Vec::new();
        for &n in positions {
            let retrieval = read(n, Asked::Keys)?;
            keys.push((retrieval.pairs(), retrieval.snr()));
            by_sequence = retrieval.snr_by_sequence();
        }
        let length = *positions.last()?;
        let all = read(length, Asked::Queries)?;
        let each = all.pairs() / length;
        let at = |&n: &i64| (each * n, all.between(n / 2, n - n / 2).peak_snr());
        Some(Self { keys, queries: positions.iter().map(at).collect(), by_sequence })
    }

    /// Of a memory that holds the same pairs whatever is read.
    pub(crate) fn of_network(read: impl Fn(Asked) -> Option<Retrieval>) -> Option<Self> {
        let (by_keys, by_inputs) = (read(Asked::Keys)?, read(Asked::Queries)?);
        let snr = by_keys.snr();
        Some(Self {
            keys: vec![(by_keys.pairs(), snr)],
            queries: vec![(by_inputs.pairs(), by_inputs.peak_snr())],
            by_sequence: vec![snr],
        })
    }
}

fn sum(power: &Tensor) -> f64 {
    power.sum(Kind::Double).double_value(&[])
}

fn ratio(signal: f64, noise: f64) -> f64 {
    if signal == 0.0 { 0.0 } else { (signal / noise).min(LARGEST_SNR) }
}

/// The values that show A when they are stored instead of the true ones: `[B, N, H, N]`, the identity for every head.
pub(crate) fn unit_values(like: &Tensor) -> Tensor {
    let (b, n, h, _) = like.size4().expect("values are [B, N, H, V]");
    let kind = crate::ops::wide(like.kind());
    Tensor::eye(n, (kind, like.device())).reshape([1, n, 1, n]).expand([b, n, h, n], false)
}
