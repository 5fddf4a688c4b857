//! What the targets of `space.loads_in` hold. Choices that no stack can have there are left out at the start; of the others
//! a stack is a member if every target holds it.
//!
//! Most targets have one size of each mixer and one FFN, which draws and changes of one layer miss nearly always. Such a
//! stack is made to fit: a change is made in all layers that were alike, or all mixers of a kind become as the first.

use super::config::{SpaceConfig, StageChoices};
use super::error::{SpaceError, invalid};
use super::left_out::{LeftOut, genes_left_out};
use super::tables::Tables;
use crate::architecture::{Architecture, Ffn, Layer, Mixer};
use crate::targets::{Obstacle, Target};

/// Leaves out what no stack can have that every target holds; says what that is.
///
/// # Errors
/// Where nothing is left to choose; says why.
pub(super) fn restrict(
    tables: &mut Tables,
    targets: &[Target],
) -> Result<Vec<LeftOut>, SpaceError> {
    let mut left_out = Vec::new();
    if targets.is_empty() {
        return Ok(left_out);
    }
    let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
    let nothing = |what: &str, reasons: &[String]| {
        let why =
            format!("no {what} of this space fits {}: {}", names.join(" and "), reasons.join("; "));
        invalid("space.loads_in", why)
    };
    let here = tables.clone();
    let one = Single { tables: &here, targets };
    restrict_mixers(tables, &one, &mut left_out);
    if tables.mixers.is_empty() {
        let reason = |LeftOut { what, reason }: &LeftOut| format!("{what} ({reason})");
        return nothing("mixer", &left_out.iter().map(reason).collect::<Vec<_>>());
    }
    let without = |d: usize| tables.mixers.iter().find(|table| table.shapes[d].is_empty());
    let lacks: Vec<Option<&str>> =
        (0..here.d_model.len()).map(|d| without(d).map(|table| table.kind.name())).collect();
    if lacks.iter().all(Option::is_some) {
        let widths = format!("{:?} has choices of every mixer left", here.d_model);
        return nothing("d_model", &[format!("none of {widths}")]);
    }
    let has_all: Vec<bool> = lacks.iter().map(Option::is_none).collect();
    for (d, kind) in here.d_model.iter().zip(&lacks) {
        if let Some(kind) = kind {
            let reason = format!("no choice of {kind} loads at this width");
            left_out.push(LeftOut { what: format!("d_model {d}"), reason });
        }
    }
    let keep = |d: usize| has_all[d];
    let mut at = 0..;
    tables.d_model.retain(|_| keep(at.next().unwrap_or(0)));
    for table in &mut tables.mixers {
        let mut at = 0..;
        table.shapes.retain(|_| keep(at.next().unwrap_or(0)));
    }
    let first_ffn = here.ffn.iter().find_map(|choice| choice.at(here.d_model[0]));
    let alone = here.ffn.iter().any(|&choice| {
        here.d_model.iter().any(|&d| choice.at(d).is_some_and(|ffn| one.fits(d, None, Some(ffn))))
    });
    if here.ffn_alone && !alone {
        let (reason, _) = one.in_the_way(here.d_model[0], None, first_ffn);
        left_out.push(LeftOut { what: "none".to_owned(), reason });
    }
    tables.ffn_alone &= alone;
    let left = tables.clone();
    tables.ffn.retain(|choice| {
        let is_left = left.d_model.iter().enumerate().any(|(at, &d)| {
            let ffn = choice.at(d);
            let mut mixers = left.mixers.iter().flat_map(|table| table.shapes(at));
            mixers.any(|shape| one.fits(d, Some(shape.mixer), ffn))
                || (left.ffn_alone && ffn.is_some() && one.fits(d, None, ffn))
        });
        if !is_left {
            let ffn = choice.at(left.d_model[0]);
            let what =
                ffn.map_or_else(|| "ffn none".to_owned(), |ffn| format!("ffn {}", ffn.choice()));
            let mixer = left.mixers[0].shapes[0][0].mixer;
            let (reason, _) = one.in_the_way(left.d_model[0], Some(mixer), ffn);
            left_out.push(LeftOut { what, reason });
        }
        is_left
    });
    tables.meta_tokens.retain(|&tokens| {
        let found = one.with_meta_tokens(tokens);
        if let Some(reason) = &found {
            let what = format!("meta_tokens {tokens}");
            left_out.push(LeftOut { what, reason: reason.clone() });
        }
        found.is_none()
    });
    if tables.meta_tokens.is_empty() {
        return nothing("number of meta tokens", &["they have none".to_owned()]);
    }
    Ok(left_out)
}

/// Shapes of mixers that load with no FFN, and mixers of which none is left.
fn restrict_mixers(tables: &mut Tables, one: &Single<'_>, left_out: &mut Vec<LeftOut>) {
    tables.mixers.retain_mut(|table| {
        let before = table.clone();
        let mut refused: Vec<(&[usize], String, usize)> = Vec::new();
        for (d, shapes) in table.shapes.iter_mut().enumerate() {
            let width = one.tables.d_model[d];
            shapes.retain(|shape| one.fits_with_some_ffn(width, shape.mixer));
            let is_kept = |mixer: Mixer| shapes.iter().any(|shape| shape.mixer == mixer);
            let gone = before.shapes[d].iter().filter(|shape| !is_kept(shape.mixer));
            refused.extend(gone.map(|shape| {
                let (reason, others) = one.reason(width, shape.mixer);
                (shape.genes.as_slice(), reason, others)
            }));
        }
        // a value is best said to be in the way by a shape of which nothing else is
        refused.sort_by_key(|(_, _, others)| *others);
        let Some((_, reason, _)) = refused.first() else { return true };
        if table.shapes.iter().all(Vec::is_empty) {
            let what = before.kind.name().to_owned();
            left_out.push(LeftOut { what, reason: reason.clone() });
            return false;
        }
        let refused: Vec<(&[usize], &str)> =
            refused.iter().map(|(genes, reason, _)| (*genes, reason.as_str())).collect();
        left_out.extend(genes_left_out(&before, table, &refused));
        true
    });
}

/// Stacks of one layer, in which nothing differs from another layer.
struct Single<'a> {
    tables: &'a Tables,
    targets: &'a [Target],
}

impl Single<'_> {
    fn stack(&self, d: u32, mixer: Option<Mixer>, ffn: Option<Ffn>) -> Option<Architecture> {
        let Tables { vocab, tied_embeddings, .. } = *self.tables;
        Architecture::new(d, vocab, tied_embeddings, vec![Layer { mixer, ffn }]).ok()
    }

    fn obstacles(&self, stack: &Architecture) -> Vec<Obstacle> {
        self.targets.iter().flat_map(|target| target.obstacles(stack)).collect()
    }

    /// Whether nothing of such a layer is in the way; what its model lacks another layer may have.
    fn fits(&self, d: u32, mixer: Option<Mixer>, ffn: Option<Ffn>) -> bool {
        self.stack(d, mixer, ffn).is_some_and(|stack| {
            self.obstacles(&stack).iter().all(|obstacle| obstacle.layers.is_empty())
        })
    }

    fn fits_with_some_ffn(&self, d: u32, mixer: Mixer) -> bool {
        self.tables.ffn.iter().any(|choice| self.fits(d, Some(mixer), choice.at(d)))
    }

    /// What is in the way of a layer of this mixer, and how much else is.
    fn reason(&self, d: u32, mixer: Mixer) -> (String, usize) {
        let ffns =
            self.tables.ffn.iter().map(|choice| self.in_the_way(d, Some(mixer), choice.at(d)));
        ffns.min_by_key(|(_, others)| *others)
            .unwrap_or_else(|| ("with none of space.ffn".to_owned(), 0))
    }

    /// What is in the way of a layer, and how much else is.
    fn in_the_way(&self, d: u32, mixer: Option<Mixer>, ffn: Option<Ffn>) -> (String, usize) {
        let found =
            self.stack(d, mixer, ffn).map(|stack| self.obstacles(&stack)).unwrap_or_default();
        let of_layer = found.iter().filter(|obstacle| !obstacle.layers.is_empty()).count();
        let first = found.into_iter().find(|obstacle| !obstacle.layers.is_empty());
        let reason = first.map_or_else(
            || "with none of space.ffn".to_owned(),
            |obstacle| Obstacle { layers: Vec::new(), ..obstacle }.text(),
        );
        (reason, of_layer.saturating_sub(1))
    }

    /// What is in the way of so many meta tokens; none: nothing.
    fn with_meta_tokens(&self, tokens: u32) -> Option<String> {
        let d = self.tables.d_model[0];
        let mixer = self.tables.mixers[0].shapes[0][0].mixer;
        let without = self.stack(d, Some(mixer), None)?;
        let known = self.obstacles(&without);
        let with = self.obstacles(&without.with_meta_tokens(tokens).ok()?);
        with.into_iter().find(|obstacle| !known.contains(obstacle)).map(|obstacle| obstacle.text())
    }
}

/// What is written of the space, with stages of the mixers that are left.
pub(super) fn remaining(config: &SpaceConfig, tables: &Tables) -> Result<SpaceConfig, SpaceError> {
    let stage = |(index, stage): (usize, &StageChoices)| {
        let mut left = stage.clone();
        left.mixers
            .retain(|kind| tables.table(*kind).is_some() || config.mixers.of(*kind).is_none());
        if left.mixers.is_empty() && !stage.mixers.is_empty() {
            return invalid(
                format!("space.stages.{index}.mixers"),
                "none of them can be computed or loaded there; name others",
            );
        }
        Ok(left)
    };
    let stages = config.stages.iter().enumerate().map(stage);
    Ok(SpaceConfig { stages: stages.collect::<Result<_, _>>()?, ..config.clone() })
}

/// In how many places a stack is not what the targets hold: layers that an obstacle names, and obstacles of the model.
pub(super) fn misfits(targets: &[Target], stack: &Architecture) -> usize {
    let obstacles = targets.iter().flat_map(|target| target.obstacles(stack));
    obstacles.map(|obstacle| obstacle.layers.len().max(1)).sum()
}

/// Why the targets do not hold a stack, by target.
pub(super) fn refusals(targets: &[Target], stack: &Architecture) -> Vec<String> {
    let of = |target: &Target| {
        let found = target.obstacles(stack);
        let texts: Vec<String> = found.iter().map(Obstacle::text).collect();
        (!texts.is_empty()).then(|| format!("{}: {}", target.name(), texts.join("; ")))
    };
    targets.iter().filter_map(of).collect()
}

/// Stacks like `child`, a change of `parent`, that are more of one size.
pub(super) fn of_one_size(
    parent: &Architecture,
    child: &Architecture,
) -> impl Iterator<Item = Architecture> {
    [spread(parent, child), alike(child)].into_iter().flatten()
}

/// The same layers with others in place of some.
fn with_layers(stack: &Architecture, layers: Vec<Layer>) -> Option<Architecture> {
    Architecture::new(stack.d_model(), stack.vocab(), stack.tied_embeddings(), layers)
        .and_then(|made| made.with_meta_tokens(stack.meta_tokens()))
        .ok()
}

/// What was changed in one layer, changed in all that had it; none where whole layers came or went.
fn spread(parent: &Architecture, child: &Architecture) -> Option<Architecture> {
    if (parent.d_model(), parent.layers().len()) != (child.d_model(), child.layers().len()) {
        return None;
    }
    let pairs = || parent.layers().iter().zip(child.layers());
    let mixers: Vec<_> = pairs().map(|(a, b)| (a.mixer, b.mixer)).filter(|(a, b)| a != b).collect();
    let ffns: Vec<_> = pairs().map(|(a, b)| (a.ffn, b.ffn)).filter(|(a, b)| a != b).collect();
    let layers = child.layers().iter().map(|layer| {
        let mixer =
            mixers.iter().find(|(old, _)| *old == layer.mixer).map_or(layer.mixer, |pair| pair.1);
        let ffn = ffns.iter().find(|(old, _)| *old == layer.ffn).map_or(layer.ffn, |pair| pair.1);
        Layer { mixer, ffn }
    });
    with_layers(child, layers.collect())
}

/// Every mixer as the first of its kind, every FFN as the first.
fn alike(stack: &Architecture) -> Option<Architecture> {
    let first_ffn = stack.layers().iter().find_map(|layer| layer.ffn);
    let mixers: Vec<Mixer> = stack.layers().iter().filter_map(|layer| layer.mixer).collect();
    let layers = stack.layers().iter().map(|layer| {
        let first =
            |mixer: Mixer| mixers.iter().find(|other| other.kind() == mixer.kind()).copied();
        Layer { mixer: layer.mixer.and_then(first), ffn: layer.ffn.and(first_ffn) }
    });
    with_layers(stack, layers.collect())
}
