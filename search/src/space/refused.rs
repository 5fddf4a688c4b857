//! What a device cannot compute of a space: asked about models of one layer, and left out before anything is proposed.

use std::collections::HashMap;

use super::Space;
use super::config::SpaceConfig;
use super::error::{SpaceError, invalid};
use super::left_out::{LeftOut, genes_left_out};
use super::loads::remaining;
use super::tables::Tables;
use crate::architecture::{Architecture, Ffn, Layer, Mixer};

impl Space {
    /// Models of one layer in which every mixer, FFN and number of meta tokens that can be chosen stands at every width: who
    /// can compute these can compute the parts of every member.
    pub fn probes(&self) -> Vec<Architecture> {
        let tables = &self.choices.tables;
        let mut probes: Vec<Architecture> = Vec::new();
        for (d, &d_model) in tables.d_model.iter().enumerate() {
            let mixers = tables.mixers.iter().flat_map(|table| table.shapes(d));
            let mixers: Vec<Mixer> = mixers.map(|shape| shape.mixer).collect();
            let with_meta = tables.meta_tokens.iter().filter(|&&n| n > 0);
            let with_meta =
                with_meta.filter_map(|&n| Some(meta(tables, d_model, *mixers.first()?, n)));
            probes.extend(mixers.iter().map(|&mixer| alone(tables, d_model, mixer)));
            probes.extend(with_meta);
            let ffns = tables.ffn.iter().filter_map(|choice| choice.at(d_model));
            probes.extend(ffns.map(|own| ffn(tables, d_model, own)));
        }
        probes
    }

    /// The space of `config` without the choices in which one of the [`Space::probes`] in `refused` stands, each with its
    /// reason; and which choices these are.
    ///
    /// # Errors
    /// Where nothing is left to choose; names the key.
    pub fn without(
        config: &SpaceConfig,
        refused: &[(Architecture, String)],
    ) -> Result<(Self, Vec<LeftOut>), SpaceError> {
        let (config, mut tables, unloadable) = Self::tables(config)?;
        let refusals = Refusals(refused.iter().map(|(probe, why)| (probe, why.as_str())).collect());
        let mut left_out = Vec::new();
        refusals.leave_out_widths(&mut tables, &mut left_out)?;
        refusals.leave_out_mixers(&mut tables, &mut left_out)?;
        refusals.leave_out_ffns(&mut tables, &mut left_out)?;
        refusals.leave_out_meta_tokens(&mut tables, &mut left_out)?;
        let config = remaining(&config, &tables)?;
        Ok((Self { left_out: unloadable, ..Self::of(&config, tables)? }, left_out))
    }
}

fn one_layer(tables: &Tables, d_model: u32, layer: Layer) -> Architecture {
    Architecture::new(d_model, tables.vocab, tables.tied_embeddings, vec![layer])
        .expect("the tables hold checked choices only")
}

fn alone(tables: &Tables, d_model: u32, mixer: Mixer) -> Architecture {
    one_layer(tables, d_model, Layer { mixer: Some(mixer), ffn: None })
}

fn ffn(tables: &Tables, d_model: u32, ffn: Ffn) -> Architecture {
    one_layer(tables, d_model, Layer { mixer: None, ffn: Some(ffn) })
}

fn meta(tables: &Tables, d_model: u32, mixer: Mixer, tokens: u32) -> Architecture {
    alone(tables, d_model, mixer)
        .with_meta_tokens(tokens)
        .expect("the tables hold checked choices only")
}

/// Why a probe is refused, by the probe.
struct Refusals<'a>(HashMap<&'a Architecture, &'a str>);

impl Refusals<'_> {
    fn of(&self, probe: &Architecture) -> Option<&str> {
        self.0.get(probe).copied()
    }

    /// The reason why all of these are refused, that of the first; none if one is not.
    fn of_all(&self, probes: impl Iterator<Item = Architecture>) -> Option<String> {
        let mut first = None;
        for probe in probes {
            let reason = self.of(&probe)?;
            first.get_or_insert_with(|| reason.to_owned());
        }
        first
    }

    /// Widths at which every mixer is refused.
    fn leave_out_widths(
        &self,
        tables: &mut Tables,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<(), SpaceError> {
        let reason_at = |d: usize| {
            let mixers = tables.mixers.iter().flat_map(|table| table.shapes(d));
            self.of_all(mixers.map(|shape| alone(tables, tables.d_model[d], shape.mixer)))
        };
        let reasons: Vec<Option<String>> = (0..tables.d_model.len()).map(reason_at).collect();
        if let Some(Some(reason)) = reasons.first()
            && reasons.iter().all(Option::is_some)
        {
            return invalid(
                "space.mixers",
                format!("nothing of it can be computed there: {reason}"),
            );
        }
        for (d, reason) in reasons.into_iter().enumerate().rev() {
            let Some(reason) = reason else { continue };
            left_out
                .push(LeftOut { what: format!("d_model {}", tables.d_model.remove(d)), reason });
            for table in &mut tables.mixers {
                table.shapes.remove(d);
            }
        }
        Ok(())
    }

    fn leave_out_mixers(
        &self,
        tables: &mut Tables,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<(), SpaceError> {
        let d_model = tables.d_model.clone();
        let mut mixers = std::mem::take(&mut tables.mixers);
        let here = &*tables;
        let mut failure = None;
        mixers.retain_mut(|table| {
            let before = table.clone();
            for (shapes, &d_model) in table.shapes.iter_mut().zip(&d_model) {
                shapes.retain(|shape| self.of(&alone(here, d_model, shape.mixer)).is_none());
            }
            let all = (0..d_model.len())
                .flat_map(|d| before.shapes(d).iter().map(move |shape| (d, shape)))
                .map(|(d, shape)| (shape, alone(here, d_model[d], shape.mixer)));
            let refused: Vec<(&[usize], &str)> =
                all.filter_map(|(shape, probe)| Some((shape.genes.as_slice(), self.of(&probe)?))).collect();
            let Some((_, reason)) = refused.first() else { return true };
            let name = before.kind.name();
            if table.shapes.iter().all(Vec::is_empty) {
                left_out.push(LeftOut { what: name.to_owned(), reason: (*reason).to_owned() });
                return false;
            }
            if let Some(d) = table.shapes.iter().position(Vec::is_empty) {
                failure.get_or_insert_with(|| SpaceError {
                    key: format!("space.mixers.{name}"),
                    message: format!(
                        "no choice can be computed at d_model = {}, {reason}; take {0} out of d_model, or change the choices",
                        d_model[d]
                    ),
                });
            }
            left_out.extend(genes_left_out(&before, table, &refused));
            true
        });
        tables.mixers = mixers;
        failure.map_or(Ok(()), Err)
    }

    fn leave_out_ffns(
        &self,
        tables: &mut Tables,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<(), SpaceError> {
        let mut choices = tables.ffn.clone();
        let mut failure = None;
        choices.retain(|choice| {
            let own = tables.d_model.iter().filter_map(|&d| Some((d, choice.at(d)?)));
            let refused: Vec<(u32, Ffn, &str)> = own
                .clone()
                .filter_map(|(d, own)| Some((d, own, self.of(&ffn(tables, d, own))?)))
                .collect();
            let Some(&(d, first, reason)) = refused.first() else { return true };
            let what = first.choice();
            if refused.len() == own.count() {
                left_out.push(LeftOut { what: format!("ffn {what}"), reason: reason.to_owned() });
                return false;
            }
            failure.get_or_insert_with(|| SpaceError {
                key: "space.ffn".to_owned(),
                message: format!(
                    "{what} at d_model = {d} cannot be computed, {reason}; take the choice or the d_model out"
                ),
            });
            true
        });
        if let Some(error) = failure {
            return Err(error);
        }
        if choices.is_empty() {
            let reason = left_out.last().map_or("", |left| left.reason.as_str());
            return invalid("space.ffn", format!("no choice can be computed there: {reason}"));
        }
        tables.ffn = choices;
        Ok(())
    }

    fn leave_out_meta_tokens(
        &self,
        tables: &mut Tables,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<(), SpaceError> {
        let mut choices = tables.meta_tokens.clone();
        choices.retain(|&tokens| {
            let refused =
                self.0.iter().find(|(probe, _)| tokens > 0 && probe.meta_tokens() == tokens);
            if let Some((_, reason)) = refused {
                let what = format!("meta_tokens {tokens}");
                left_out.push(LeftOut { what, reason: (*reason).to_owned() });
            }
            refused.is_none()
        });
        if choices.is_empty() {
            let reason = left_out.last().map_or("", |left| left.reason.as_str());
            return invalid(
                "space.meta_tokens",
                format!("no choice can be computed there: {reason}"),
            );
        }
        tables.meta_tokens = choices;
        Ok(())
    }
}
