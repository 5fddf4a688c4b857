//! The staged form: a template of stages, each of which repeats one block of at most two mixers (arXiv 2511.18890).
//!
//! A block is `a` times the first mixer and `b` times the second, each followed by the same number of FFNs. The shape
//! of each mixer and the width of the FFN are genes of the whole model. An FFN beyond the first after a mixer is a layer
//! without a mixer.

use rand::{Rng, RngExt};

use super::config::{FfnChoice, SpaceConfig};
use super::error::{SpaceError, SpaceViolation, invalid};
use super::form::{Form, pick, pick_other};
use super::stage::{Group, Stage, StageGenes};
use super::tables::{Tables, combinations, described};
use crate::architecture::{Architecture, Layer, MAX_LAYERS};

#[derive(Debug, Clone)]
pub(super) struct Staged {
    stages: Vec<Stage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Genome {
    /// Index into the choices of d_model.
    d: usize,
    ffn: usize,
    /// For each mixer of the tables, used or not, the index of its shape at this d_model.
    shapes: Vec<usize>,
    stages: Vec<StageGenes>,
}

impl Staged {
    pub(super) fn new(config: &SpaceConfig, tables: &Tables) -> Result<Self, SpaceError> {
        if config.ffn.contains(&FfnChoice::None) {
            return invalid(
                "space.ffn",
                "\"none\" has no place beside stages; write ffns_per_mixer = [0, …] instead",
            );
        }
        if tables.ffn_alone {
            return invalid(
                "space.mixers.none",
                "has no place beside stages; write ffns_per_mixer = [1, 2] instead",
            );
        }
        let stages: Result<Vec<_>, _> = config
            .stages
            .iter()
            .enumerate()
            .map(|(index, stage)| Stage::new(index, stage, tables))
            .collect();
        let stages = stages?;
        let longest: u64 = stages.iter().map(Stage::most_layers).sum();
        if longest > MAX_LAYERS as u64 {
            return invalid(
                "space.stages",
                format!("up to {longest} layers; at most {MAX_LAYERS} are possible"),
            );
        }
        Ok(Self { stages })
    }

    /// Mixers of a template in the middle of all its choices.
    pub(super) fn middle_mixers(&self) -> u32 {
        let mixers = self.stages.iter().map(|stage| {
            let ratio = stage.ratios[stage.ratios.len() / 2];
            (ratio.first + ratio.second) * stage.repeat.min.midpoint(stage.repeat.max)
        });
        mixers.sum()
    }
}

impl Form for Staged {
    type Genome = Genome;

    fn random<R: Rng + ?Sized>(&self, tables: &Tables, rng: &mut R) -> Genome {
        let d = pick(rng, tables.d_model.len());
        Genome {
            d,
            ffn: pick(rng, tables.ffn.len()),
            shapes: tables.mixers.iter().map(|table| pick(rng, table.shapes(d).len())).collect(),
            stages: self.stages.iter().map(|stage| stage.random(rng)).collect(),
        }
    }

    fn express(&self, tables: &Tables, genome: &Genome) -> Architecture {
        let d_model = tables.d_model[genome.d];
        let ffn = tables.ffn[genome.ffn].at(d_model);
        let mut layers = Vec::new();
        for (stage, genes) in self.stages.iter().zip(&genome.stages) {
            let block = stage.block(genes);
            for (table, ffns) in std::iter::repeat_n(block, genes.repeat as usize).flatten() {
                let mixer = tables.mixers[table].shapes(genome.d)[genome.shapes[table]].mixer;
                layers.push(Layer { mixer: Some(mixer), ffn: if ffns > 0 { ffn } else { None } });
                for _ in 1..ffns {
                    layers.push(Layer { mixer: None, ffn });
                }
            }
        }
        Architecture::new(d_model, tables.vocab, tables.tied_embeddings, layers)
            .expect("the tables hold checked choices only")
    }

    fn read(&self, tables: &Tables, architecture: &Architecture) -> Result<Genome, SpaceViolation> {
        let d_model = architecture.d_model();
        let d = tables
            .d_model
            .iter()
            .position(|&choice| choice == d_model)
            .ok_or_else(|| SpaceViolation::Model { what: format!("d_model = {d_model}") })?;
        let mut shapes = vec![None; tables.mixers.len()];
        let mut ffn = None;
        let mut groups: Vec<Group> = Vec::new();
        for (index, layer) in architecture.layers().iter().enumerate() {
            let refuse = |what: String| SpaceViolation::Layer { layer: index, what };
            if let Some(mixer) = layer.mixer {
                let table = tables.table(mixer.kind()).ok_or_else(|| refuse(mixer.to_string()))?;
                let shape = tables.mixers[table]
                    .index_of(d, &mixer)
                    .ok_or_else(|| refuse(mixer.to_string()))?;
                if *shapes[table].get_or_insert(shape) != shape {
                    return Err(refuse(format!("a second shape, {mixer},")));
                }
                groups.push((table, 0));
            }
            if let Some(of_layer) = layer.ffn {
                let own = tables
                    .ffn_index(d, Some(of_layer))
                    .ok_or_else(|| refuse(described(of_layer)))?;
                if *ffn.get_or_insert(own) != own {
                    let choice = of_layer.choice();
                    return Err(refuse(format!("a second FFN width, {choice},")));
                }
                groups
                    .last_mut()
                    .ok_or_else(|| refuse("an FFN before the first mixer".to_owned()))?
                    .1 += 1;
            }
        }
        let mut stages = Vec::new();
        let mut dead = vec![false; self.stages.len() * (groups.len() + 1)];
        if !self.parse(&groups, 0, &mut stages, &mut dead) {
            return Err(SpaceViolation::Model { what: "this order of mixers and FFNs".to_owned() });
        }
        let shapes = shapes.into_iter().map(|shape| shape.unwrap_or(0)).collect();
        Ok(Genome { d, ffn: ffn.unwrap_or(0), shapes, stages })
    }

    /// The layers are cut into as many equal runs as there are stages; each takes the block that is most like its run.
    fn project(&self, tables: &Tables, architecture: &Architecture) -> Genome {
        let d = tables.nearest_d_model(architecture.d_model());
        let layers = architecture.layers();
        let shapes = tables.mixers.iter().map(|table| {
            let own = layers
                .iter()
                .filter_map(|layer| layer.mixer)
                .find(|mixer| mixer.kind() == table.kind);
            own.map_or(0, |mixer| table.nearest_shape(d, &mixer))
        });
        let ffn = layers
            .iter()
            .find_map(|layer| layer.ffn)
            .map_or(0, |ffn| tables.nearest_ffn(d, Some(ffn)));
        let mut groups: Vec<(Option<usize>, u32)> = Vec::new();
        for layer in layers {
            if let Some(mixer) = layer.mixer {
                groups.push((tables.table(mixer.kind()), 0));
            }
            if let (Some(_), Some(group)) = (layer.ffn, groups.last_mut()) {
                group.1 += 1;
            }
        }
        let count = self.stages.len();
        let stages = self.stages.iter().enumerate().map(|(index, stage)| {
            let run = &groups[index * groups.len() / count..(index + 1) * groups.len() / count];
            let unlike = |genes: &StageGenes| {
                let block = stage.block(genes);
                let differing = run.iter().zip(block.iter().cycle()).map(|(got, wanted)| {
                    2 * u64::from(got.0 != Some(wanted.0)) + u64::from(got.1.abs_diff(wanted.1))
                });
                differing.sum::<u64>()
            };
            let mut genes = stage.blocks().min_by_key(unlike).expect("no list of choices is empty");
            let repeat = (run.len() / stage.block(&genes).len().max(1)) as u32;
            genes.repeat = repeat.clamp(stage.repeat.min, stage.repeat.max);
            genes
        });
        Genome { d, ffn, shapes: shapes.collect(), stages: stages.collect() }
    }

    fn mutate<R: Rng + ?Sized>(
        &self,
        tables: &Tables,
        genome: &Genome,
        rng: &mut R,
    ) -> Option<(Genome, String)> {
        // A stage has as much to say as all that the stages share.
        let place = pick(rng, self.stages.len() + 1);
        if place < self.stages.len() {
            let changes = self.stages[place].changes(tables, place, genome.stages[place]);
            if changes.is_empty() {
                return None;
            }
            let (genes, what) = changes[pick(rng, changes.len())].clone();
            return Some((genome.with_stage(place, genes), what));
        }
        match pick(rng, 3) {
            0 => {
                Some(genome.change_width(tables, pick_other(rng, tables.d_model.len(), genome.d)?))
            }
            1 => Some(genome.change_ffn(tables, pick_other(rng, tables.ffn.len(), genome.ffn)?)),
            _ => {
                let table = pick(rng, tables.mixers.len());
                let mixer = &tables.mixers[table];
                let genes = &mixer.shapes(genome.d)[genome.shapes[table]].genes;
                let gene = pick(rng, mixer.drawn());
                let value = pick_other(rng, mixer.values(gene), genes[gene])?;
                Some(genome.change_shape(
                    tables,
                    table,
                    mixer.with_gene(genome.d, genes, gene, value)?,
                ))
            }
        }
    }

    /// Stage by stage, and each shared gene, from either parent.
    fn recombine<R: Rng + ?Sized>(
        &self,
        tables: &Tables,
        a: &Genome,
        b: &Genome,
        rng: &mut R,
    ) -> Genome {
        let (a, b) = if rng.random_bool(0.5) { (a, b) } else { (b, a) };
        let b = if a.d == b.d { b.clone() } else { b.change_width(tables, a.d).0 };
        let mut child = a.clone();
        for (own, other) in child.stages.iter_mut().zip(&b.stages) {
            if rng.random_bool(0.5) {
                *own = *other;
            }
        }
        for (own, other) in child.shapes.iter_mut().zip(&b.shapes) {
            if rng.random_bool(0.5) {
                *own = *other;
            }
        }
        if rng.random_bool(0.5) {
            child.ffn = b.ffn;
        }
        child
    }

    fn neighbours(&self, tables: &Tables, genome: &Genome) -> Vec<(Genome, String)> {
        let mut all = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
            for (genes, what) in stage.changes(tables, index, genome.stages[index]) {
                all.push((genome.with_stage(index, genes), what));
            }
        }
        for (index, table) in tables.mixers.iter().enumerate() {
            let genes = &table.shapes(genome.d)[genome.shapes[index]].genes;
            for gene in 0..genes.len() {
                for value in (0..table.values(gene)).filter(|&value| value != genes[gene]) {
                    if let Some(shape) = table.with_gene(genome.d, genes, gene, value) {
                        all.push(genome.change_shape(tables, index, shape));
                    }
                }
            }
        }
        for ffn in (0..tables.ffn.len()).filter(|&ffn| ffn != genome.ffn) {
            all.push(genome.change_ffn(tables, ffn));
        }
        for d in (0..tables.d_model.len()).filter(|&d| d != genome.d) {
            all.push(genome.change_width(tables, d));
        }
        all
    }

    fn size(&self, tables: &Tables) -> f64 {
        let stages: f64 = self
            .stages
            .iter()
            .map(|stage| stage.blocks().count() as f64 * f64::from(stage.repeats()))
            .product();
        let shapes = |d: usize| {
            tables.mixers.iter().map(|table| table.shapes(d).len() as f64).product::<f64>()
        };
        (0..tables.d_model.len()).map(shapes).sum::<f64>() * tables.ffn.len() as f64 * stages
    }

    fn all(&self, tables: &Tables) -> Vec<Genome> {
        let blocks: Vec<Vec<StageGenes>> =
            self.stages.iter().map(|stage| stage.blocks().collect()).collect();
        let mut all = Vec::new();
        for d in 0..tables.d_model.len() {
            let mut sizes = vec![tables.ffn.len()];
            sizes.extend(tables.mixers.iter().map(|table| table.shapes(d).len()));
            for (stage, blocks) in self.stages.iter().zip(&blocks) {
                sizes.extend([blocks.len(), stage.repeats() as usize]);
            }
            for choice in combinations(&sizes) {
                let (shapes, stages) = choice[1..].split_at(tables.mixers.len());
                let stages = stages.chunks_exact(2).zip(&self.stages).zip(&blocks).map(
                    |((genes, stage), blocks)| StageGenes {
                        repeat: stage.repeat.min + genes[1] as u32,
                        ..blocks[genes[0]]
                    },
                );
                all.push(Genome {
                    d,
                    ffn: choice[0],
                    shapes: shapes.to_vec(),
                    stages: stages.collect(),
                });
            }
        }
        all
    }
}

impl Staged {
    /// Finds genes for the stages after `found` that make exactly the groups from `at` on. `dead` remembers, for each
    /// stage and position, that there are none.
    fn parse(
        &self,
        groups: &[Group],
        at: usize,
        found: &mut Vec<StageGenes>,
        dead: &mut [bool],
    ) -> bool {
        let Some(stage) = self.stages.get(found.len()) else {
            return at == groups.len();
        };
        let memory = found.len() * (groups.len() + 1) + at;
        if dead[memory] {
            return false;
        }
        for genes in stage.blocks() {
            let block = stage.block(&genes);
            let mut end = at;
            for repeat in 1..=stage.repeat.max {
                if !groups[end..].starts_with(&block) {
                    break;
                }
                end += block.len();
                if repeat >= stage.repeat.min {
                    found.push(StageGenes { repeat, ..genes });
                    if self.parse(groups, end, found, dead) {
                        return true;
                    }
                    found.pop();
                }
            }
        }
        dead[memory] = true;
        false
    }
}

impl Genome {
    fn with_stage(&self, index: usize, genes: StageGenes) -> Self {
        let mut child = self.clone();
        child.stages[index] = genes;
        child
    }

    fn change_shape(&self, tables: &Tables, table: usize, shape: usize) -> (Self, String) {
        let mixer = &tables.mixers[table];
        let shapes = mixer.shapes(self.d);
        let what = format!(
            "{} {}",
            mixer.kind.name(),
            mixer.difference(&shapes[self.shapes[table]], &shapes[shape])
        );
        let mut child = self.clone();
        child.shapes[table] = shape;
        (child, what)
    }

    fn change_ffn(&self, tables: &Tables, ffn: usize) -> (Self, String) {
        let show = |ffn: usize| tables.show_ffn(self.d, ffn);
        (Self { ffn, ..self.clone() }, format!("ffn {} → {}", show(self.ffn), show(ffn)))
    }

    /// The same genes at another width; a shape that does not exist there becomes the one most like it.
    fn change_width(&self, tables: &Tables, d: usize) -> (Self, String) {
        let shapes = tables.mixers.iter().zip(&self.shapes);
        let shapes = shapes
            .map(|(table, &shape)| table.most_like(d, &table.shapes(self.d)[shape].genes))
            .collect();
        let what = format!("d_model {} → {}", tables.d_model[self.d], tables.d_model[d]);
        (Self { d, shapes, ..self.clone() }, what)
    }
}
