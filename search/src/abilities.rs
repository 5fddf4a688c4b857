//! What mixers are known to be able to do and not to do, as generated tasks with the stacks to try on them: data for
//! `deltafront bench abilities`.
//!
//! Every contender of an ability is given the same task, the same steps and the same width; what differs is the mixer.

use crate::architecture::Architecture;
use crate::config::{TaskConfig, TaskKind, TrainingConfig};

/// A claim of the literature that a few minutes of training can show.
#[derive(Debug, Clone, PartialEq)]
pub struct Ability {
    /// One word, to choose it by.
    pub name: &'static str,
    /// One sentence, with its source.
    pub claim: &'static str,
    /// The task that shows it.
    pub task: TaskConfig,
    /// The multiple of the training length that it is judged at.
    pub judged_at: u32,
    /// Accuracy from which it is solved.
    pub solved_from: f64,
    /// Accuracy below which it is not.
    pub failed_below: f64,
    /// Who tries.
    pub contenders: Vec<Contender>,
}

/// A stack that tries.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// For the table.
    pub name: &'static str,
    /// The stack; its vocabulary is replaced by the task's.
    pub architecture: Architecture,
    /// What the claim says of it.
    pub expected: Verdict,
}

/// What a mean accuracy amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It can.
    Solves,
    /// Neither.
    Partly,
    /// It cannot.
    Fails,
}

impl Verdict {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Solves => "solves",
            Self::Partly => "partly",
            Self::Fails => "fails",
        }
    }
}

impl Ability {
    /// The name of the value that it is judged by.
    pub fn value_name(&self) -> String {
        self.task.value_name(self.judged_at, "accuracy")
    }

    /// What a mean accuracy over seeds amounts to.
    pub fn verdict(&self, accuracy: f64) -> Verdict {
        if accuracy >= self.solved_from {
            Verdict::Solves
        } else if accuracy < self.failed_below {
            Verdict::Fails
        } else {
            Verdict::Partly
        }
    }
}

/// The settings of all these trainings that a task does not set itself.
pub fn training(threads: u32) -> TrainingConfig {
    // Decay slows the sudden part of learning to recall, and there is nothing to overfit: every sequence is new.
    TrainingConfig { threads, weight_decay: 0.0, ..TrainingConfig::default() }
}

/// Every ability, in the order of the table.
pub fn abilities() -> Vec<Ability> {
    vec![recall(), parity(), s3()]
}

fn contender(name: &'static str, architecture: &str, expected: Verdict) -> Contender {
    Contender {
        name,
        architecture: architecture.parse().expect("a test parses them all"),
        expected,
    }
}

fn recall() -> Ability {
    Ability {
        name: "recall",
        claim: "attention recalls across the whole sequence, but not beyond its window (arXiv 2312.04927), nor do \
                gated convolutions beyond theirs; of the mixers \
                with a fixed state, DeltaNet recalls more pairs than Mamba2 with as much state (arXiv 2406.06484)",
        task: TaskConfig {
            tokens: 64 * 24 * 600,
            batch: 64,
            sequence_length: 24,
            symbols: 16,
            items: 4,
            ..TaskConfig::new(TaskKind::Mqar)
        },
        judged_at: 1,
        solved_from: 0.95,
        failed_below: 0.75,
        contenders: vec![
            contender(
                "full attention",
                "d=64,vocab=33,tied | 2*attn(h=2,kv=2,k=32)",
                Verdict::Solves,
            ),
            contender(
                "SWA, window 24: all of it",
                "d=64,vocab=33,tied | 2*swa(h=2,kv=2,k=32,w=24)",
                Verdict::Solves,
            ),
            contender(
                "SWA, window 4",
                "d=64,vocab=33,tied | 2*swa(h=2,kv=2,k=32,w=4)",
                Verdict::Fails,
            ),
            contender(
                "gated short convolutions of 3",
                "d=64,vocab=33,tied | 2*gsc(c=64,k=3)",
                Verdict::Fails,
            ),
            contender(
                "DeltaNet, state 512",
                "d=64,vocab=33,tied | 2*dn(h=2,k=16,v=16)",
                Verdict::Solves,
            ),
            contender(
                "Gated DeltaNet, state 512",
                "d=64,vocab=33,tied | 2*gdn(h=2,k=16,v=16)",
                Verdict::Solves,
            ),
            contender(
                "Kimi Delta Attention, state 512",
                "d=64,vocab=33,tied | 2*kda(h=2,k=16,v=16)",
                Verdict::Solves,
            ),
            contender(
                "Mamba2, state 512",
                "d=64,vocab=33,tied | 2*m2(h=2,p=16,n=16)",
                Verdict::Fails,
            ),
            contender(
                "parallel heads: attention beside Mamba2",
                "d=64,vocab=33,tied | 2*par(h=2,kv=2,k=32,bh=2,bk=16,bv=16)",
                Verdict::Solves,
            ),
            contender(
                "DeltaNet, state 512, mixtures of experts",
                "d=64,vocab=33,tied | 2*dn(h=2,k=16,v=16)+moe(64,e=4,k=1)",
                Verdict::Solves,
            ),
        ],
    }
}

fn parity() -> Ability {
    Ability {
        name: "parity",
        claim: "eigenvalues in [0, 1] cannot track parity past the training length; those in [-1, 1] can (arXiv 2411.12537), \
                and so can Selective RoPE, which turns by half a circle (arXiv 2511.17388)",
        task: TaskConfig {
            tokens: 64 * 24 * 2000,
            batch: 64,
            sequence_length: 24,
            extrapolate: vec![2],
            ..TaskConfig::new(TaskKind::Parity)
        },
        judged_at: 2,
        solved_from: 0.95,
        failed_below: 0.75,
        contenders: vec![
            // Without the convolutions: they count the ones among neighbouring tokens, which is not what is asked here.
            contender(
                "DeltaNet, [0, 1]",
                "d=32,vocab=2,tied | dn(h=2,k=16,v=16,noconv)",
                Verdict::Fails,
            ),
            contender(
                "Gated DeltaNet, [0, 1]",
                "d=32,vocab=2,tied | gdn(h=2,k=16,v=16,noconv)",
                Verdict::Fails,
            ),
            contender("Mamba2", "d=32,vocab=2,tied | m2(h=2,p=16,n=16)", Verdict::Fails),
            contender(
                "DeltaNet, [-1, 1]",
                "d=32,vocab=2,tied | dn(h=2,k=16,v=16,neg,noconv)",
                Verdict::Solves,
            ),
            contender(
                "DeltaNet, [0, 1], Selective RoPE",
                "d=32,vocab=2,tied | dn(h=2,k=16,v=16,noconv,srope)",
                Verdict::Solves,
            ),
            contender(
                "DeltaNet, [0, 1], all parts of Selective RoPE",
                "d=32,vocab=2,tied | dn(h=2,k=16,v=16,noconv,srope,pgate,pbias,pfull,ptemp=learnt)",
                Verdict::Solves,
            ),
        ],
    }
}

fn s3() -> Ability {
    Ability {
        name: "s3",
        claim: "two Householder steps a token with eigenvalues in [-1, 1] track S3; one, or [0, 1], does not (arXiv 2502.10297)",
        task: TaskConfig {
            tokens: 64 * 16 * 4000, // after 900 steps one seed of four tracks it, after 4000 each
            batch: 64,
            sequence_length: 16,
            extrapolate: vec![2],
            ..TaskConfig::new(TaskKind::S3)
        },
        judged_at: 2,
        solved_from: 0.95,
        failed_below: 0.5,
        contenders: vec![
            // Without the convolutions: they mix neighbouring tokens, which is not what is asked here.
            contender(
                "DeltaProduct 2, [-1, 1]",
                "d=64,vocab=6 | dp(h=4,k=16,v=16,n=2,neg,noconv)",
                Verdict::Solves,
            ),
            contender(
                "DeltaProduct 2, [0, 1]",
                "d=64,vocab=6 | dp(h=4,k=16,v=16,n=2,noconv)",
                Verdict::Fails,
            ),
            contender(
                "DeltaNet, [-1, 1]",
                "d=64,vocab=6 | dn(h=4,k=16,v=16,neg,noconv)",
                Verdict::Fails,
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Past;

    #[test]
    fn every_ability_can_be_tried() {
        let abilities = abilities();
        for (index, ability) in abilities.iter().enumerate() {
            assert!(abilities[..index].iter().all(|other| other.name != ability.name));
            assert_eq!(ability.task.check(), Ok(()), "{}", ability.name);
            assert!(ability.task.value_names().contains(&ability.value_name()), "{}", ability.name);
            assert!(ability.contenders.len() >= 2 && ability.failed_below < ability.solved_from);
            assert_eq!(ability.verdict(1.0), Verdict::Solves);
            assert_eq!(ability.verdict(0.0), Verdict::Fails);
        }
    }

    #[test]
    fn recall_is_compared_at_equal_state() {
        let mut compared = 0;
        for contender in recall().contenders {
            for layer in contender.architecture.layers() {
                let past = layer.mixer.and_then(|mixer| mixer.pasts().next());
                let Some(Past::States { elements, .. }) = past else {
                    continue; // attention, whose cache grows
                };
                if elements == 0 {
                    continue; // a convolution, which keeps inputs
                }
                assert_eq!(elements, 512, "{}", contender.name);
                compared += 1;
            }
        }
        assert_eq!(compared, 5 * 2);
    }
}
