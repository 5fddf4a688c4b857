//! What the kernels must compute, in f64, one head of one sequence at a time: the recurrence of
//! [`crate::delta_rule::definition`], [`crate::kda::definition`] and [`crate::linear_attention::definition`], and its
//! gradients by going back through it position by position.

use super::Rule;

/// The inputs of one head.
#[derive(Debug, Clone)]
pub struct Head {
    /// `[T, K]`.
    pub q: Vec<f64>,
    /// `[T, K]`.
    pub k: Vec<f64>,
    /// `[T, V]`.
    pub v: Vec<f64>,
    /// `[T]`, or of the delta rule `[T, K]`: a decay for each channel of the keys.
    pub g: Vec<f64>,
    /// `[T]`; not read by linear attention.
    pub beta: Vec<f64>,
    /// `[K, V]`, before the first position.
    pub state: Vec<f64>,
    /// Factor of the output.
    pub scale: f64,
}

/// Gradients of one head, each of the shape of its input.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the gradient of the input of that name")]
pub struct HeadGradients {
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub g: Vec<f64>,
    pub beta: Vec<f64>,
    pub state: Vec<f64>,
}

impl Head {
    /// The output `[T, V]` and the state after the last position.
    pub fn forward(&self, rule: Rule) -> (Vec<f64>, Vec<f64>) {
        let Self { q, k, v, g, beta, state, scale } = self;
        let mut state = state.clone();
        let out = match rule {
            Rule::Delta if g.len() > beta.len() => {
                crate::kda::definition(q, k, v, g, beta, *scale, &mut state)
            }
            Rule::Delta => crate::delta_rule::definition(q, k, v, g, beta, *scale, &mut state),
            Rule::LinearAttention => {
                crate::linear_attention::definition(q, k, v, g, *scale, &mut state)
            }
        };
        (out, state)
    }

    /// Gradients of Σ out · d_out + Σ state after · d_state_after.
    pub fn backward(&self, rule: Rule, d_out: &[f64], d_state_after: &[f64]) -> HeadGradients {
        let tokens = self.beta.len();
        let (width, columns) = (self.k.len() / tokens, self.v.len() / tokens);
        let channels = self.g.len() / tokens; // that have a decay of their own
        // S before each position
        let mut states = vec![self.state.clone()];
        for t in 0..tokens {
            let mut head = self.rows(t, t + 1, [width, columns, channels]);
            head.state.clone_from(&states[t]);
            states.push(head.forward(rule).1);
        }
        let mut d = HeadGradients {
            q: vec![0.0; self.q.len()],
            k: vec![0.0; self.k.len()],
            v: vec![0.0; self.v.len()],
            g: vec![0.0; self.g.len()],
            beta: vec![0.0; tokens],
            state: d_state_after.to_vec(),
        };
        for t in (0..tokens).rev() {
            let (q, k) = (&self.q[t * width..][..width], &self.k[t * width..][..width]);
            let v = &self.v[t * columns..][..columns];
            let d_o = &d_out[t * columns..][..columns];
            let after = &states[t + 1];
            let g = &self.g[t * channels..][..channels];
            let decays: Vec<f64> = (0..width).map(|i| g[i % channels].exp()).collect();
            let decayed: Vec<f64> =
                states[t].iter().enumerate().map(|(at, s)| decays[at / columns] * s).collect();
            let error: Vec<f64> = match rule {
                Rule::Delta => (0..columns)
                    .map(|j| {
                        v[j] - (0..width).map(|i| decayed[i * columns + j] * k[i]).sum::<f64>()
                    })
                    .collect(),
                Rule::LinearAttention => v.to_vec(),
            };
            let beta = if rule == Rule::Delta { self.beta[t] } else { 1.0 };
            let d_s = &mut d.state;
            for (i, q_i) in q.iter().enumerate() {
                for j in 0..columns {
                    d.q[t * width + i] += self.scale * after[i * columns + j] * d_o[j];
                    d_s[i * columns + j] += self.scale * q_i * d_o[j];
                }
            }
            // S = decayed + k uᵀ, u = β · error
            let d_u: Vec<f64> = (0..columns)
                .map(|j| (0..width).map(|i| d_s[i * columns + j] * k[i]).sum())
                .collect();
            for (i, k_i) in k.iter().enumerate() {
                for j in 0..columns {
                    let at = i * columns + j;
                    d.k[t * width + i] += d_s[at] * beta * error[j];
                    if rule == Rule::Delta {
                        d.k[t * width + i] -= beta * d_u[j] * decayed[at];
                        d_s[at] -= beta * k_i * d_u[j];
                    }
                }
            }
            for j in 0..columns {
                d.v[t * columns + j] = beta * d_u[j];
                d.beta[t] += d_u[j] * error[j];
            }
            for (at, (d_s, s)) in d_s.iter_mut().zip(&decayed).enumerate() {
                d.g[t * channels + at / columns % channels] += *d_s * s;
                *d_s *= decays[at / columns];
            }
        }
        d
    }

    /// Positions `from` to `to`.
    fn rows(&self, from: usize, to: usize, [width, columns, channels]: [usize; 3]) -> Self {
        Self {
            q: self.q[from * width..to * width].to_vec(),
            k: self.k[from * width..to * width].to_vec(),
            v: self.v[from * columns..to * columns].to_vec(),
            g: self.g[from * channels..to * channels].to_vec(),
            beta: self.beta[from..to].to_vec(),
            state: self.state.clone(),
            scale: self.scale,
        }
    }
}
