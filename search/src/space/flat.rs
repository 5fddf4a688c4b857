//! The flat form: a list of layers, each with its own mixer, shape and FFN; where the file has `[space.mixers.none]` a layer
//! may also be an FFN alone.

use rand::{Rng, RngExt};

use super::config::{FfnChoice, Range, SpaceConfig};
use super::error::{SpaceError, SpaceViolation, invalid};
use super::form::{Form, pick, pick_other};
use super::tables::{MixerTable, Tables, combinations, described};
use crate::architecture::{Architecture, Layer, MAX_LAYERS};

#[derive(Debug, Clone)]
pub(super) struct Flat {
    depth: Range,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Genome {
    /// Index into the choices of d_model.
    d: usize,
    layers: Vec<LayerGenes>,
}

/// A mixer, or none, and an index into the choices of FFNs; at least one of the two is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LayerGenes {
    mixer: Option<MixerGenes>,
    ffn: usize,
}

/// Indices into the tables: which mixer, which of its shapes at this d_model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MixerGenes {
    table: usize,
    shape: usize,
}

impl LayerGenes {
    /// Whether it is no empty layer.
    fn is_possible(&self, tables: &Tables) -> bool {
        self.mixer.is_some() || tables.ffn[self.ffn] != FfnChoice::None
    }

    /// Its kind of mixer: the index of its table, and after all of these none.
    fn kind(&self, tables: &Tables) -> usize {
        self.mixer.map_or(tables.mixers.len(), |mixer| mixer.table)
    }

    /// The name of its mixer.
    fn name(&self, tables: &Tables) -> &'static str {
        name(tables, self.kind(tables))
    }
}

/// Kinds of mixer that a layer may have, no mixer included where that is a choice.
fn kinds(tables: &Tables) -> usize {
    tables.mixers.len() + usize::from(tables.ffn_alone)
}

/// The name of a kind of mixer.
fn name(tables: &Tables, kind: usize) -> &'static str {
    tables.mixers.get(kind).map_or("none", |table| table.kind.name())
}

/// A mixer of a kind, its shape by `shape` of its table; none of the kind that is none.
fn mixer_of(
    tables: &Tables,
    kind: usize,
    shape: impl FnOnce(&MixerTable) -> usize,
) -> Option<MixerGenes> {
    tables.mixers.get(kind).map(|table| MixerGenes { table: kind, shape: shape(table) })
}

/// The kinds of change, as often as each is drawn.
const MOVES: [Move; 14] = [
    Move::Kind,
    Move::Kind,
    Move::Kind,
    Move::Parameter,
    Move::Parameter,
    Move::Parameter,
    Move::Ffn,
    Move::Ffn,
    Move::Insert,
    Move::Duplicate,
    Move::Remove,
    Move::Remove,
    Move::Swap,
    Move::Width,
];

#[derive(Debug, Clone, Copy)]
enum Move {
    Kind,
    Parameter,
    Ffn,
    Insert,
    Duplicate,
    Remove,
    Swap,
    Width,
}

impl Flat {
    pub(super) fn new(config: &SpaceConfig) -> Result<Self, SpaceError> {
        let Some(depth) = config.depth else {
            return invalid(
                "space.depth",
                "a flat space needs a range of layers, e.g. depth = { min = 2, max = 6 }",
            );
        };
        check_depth(depth)?;
        Ok(Self { depth })
    }

    fn may_grow(&self, genome: &Genome) -> bool {
        genome.layers.len() < self.depth.max as usize
    }

    fn may_shrink(&self, genome: &Genome) -> bool {
        genome.layers.len() > self.depth.min as usize
    }
}

/// Depth must be a range of possible numbers of layers.
pub(super) fn check_depth(depth: Range) -> Result<(), SpaceError> {
    let Range { min, max } = depth;
    if min == 0 || max as usize > MAX_LAYERS {
        return invalid(
            "space.depth",
            format!("must be within 1 to {MAX_LAYERS} layers, got {min} to {max}"),
        );
    }
    if min > max {
        return invalid("space.depth", format!("min = {min} is more than max = {max}"));
    }
    Ok(())
}

fn random_layer<R: Rng + ?Sized>(tables: &Tables, d: usize, rng: &mut R) -> LayerGenes {
    loop {
        let kind = pick(rng, kinds(tables));
        let mixer = mixer_of(tables, kind, |table| pick(rng, table.shapes(d).len()));
        let layer = LayerGenes { mixer, ffn: pick(rng, tables.ffn.len()) };
        if layer.is_possible(tables) {
            return layer;
        }
    }
}

impl Form for Flat {
    type Genome = Genome;

    fn random<R: Rng + ?Sized>(&self, tables: &Tables, rng: &mut R) -> Genome {
        let d = pick(rng, tables.d_model.len());
        let depth = rng.random_range(self.depth.min..=self.depth.max);
        Genome { d, layers: (0..depth).map(|_| random_layer(tables, d, rng)).collect() }
    }

    fn express(&self, tables: &Tables, genome: &Genome) -> Architecture {
        let d_model = tables.d_model[genome.d];
        let layers = genome.layers.iter().map(|layer| Layer {
            mixer: layer.mixer.map(|of| tables.mixers[of.table].shapes(genome.d)[of.shape].mixer),
            ffn: tables.ffn[layer.ffn].at(d_model),
        });
        Architecture::new(d_model, tables.vocab, tables.tied_embeddings, layers.collect())
            .expect("the tables hold checked choices only")
    }

    fn read(&self, tables: &Tables, architecture: &Architecture) -> Result<Genome, SpaceViolation> {
        let d_model = architecture.d_model();
        let d = tables
            .d_model
            .iter()
            .position(|&choice| choice == d_model)
            .ok_or_else(|| SpaceViolation::Model { what: format!("d_model = {d_model}") })?;
        let depth = architecture.layers().len();
        if !(self.depth.min as usize..=self.depth.max as usize).contains(&depth) {
            return Err(SpaceViolation::Model { what: format!("a depth of {depth}") });
        }
        let layers = architecture.layers().iter().enumerate().map(|(index, layer)| {
            let refuse = |what: String| SpaceViolation::Layer { layer: index, what };
            let mixer = match layer.mixer {
                None if tables.ffn_alone => None,
                None => return Err(refuse("no mixer".to_owned())),
                Some(mixer) => {
                    let unknown = || refuse(mixer.to_string());
                    let table = tables.table(mixer.kind()).ok_or_else(unknown)?;
                    let shape = tables.mixers[table].index_of(d, &mixer).ok_or_else(unknown)?;
                    Some(MixerGenes { table, shape })
                }
            };
            let ffn = tables
                .ffn_index(d, layer.ffn)
                .ok_or_else(|| refuse(layer.ffn.map_or_else(|| "no FFN".to_owned(), described)))?;
            Ok(LayerGenes { mixer, ffn })
        });
        Ok(Genome { d, layers: layers.collect::<Result<_, _>>()? })
    }

    fn project(&self, tables: &Tables, architecture: &Architecture) -> Genome {
        let d = tables.nearest_d_model(architecture.d_model());
        let mut layers: Vec<LayerGenes> = Vec::new();
        for layer in architecture.layers() {
            let ffn = tables.nearest_ffn(d, layer.ffn);
            let mixer = match (layer.mixer, layers.last()) {
                (Some(mixer), _) => {
                    let table = tables.table(mixer.kind()).unwrap_or(0);
                    let shape = tables.mixers[table].nearest_shape(d, &mixer);
                    Some(MixerGenes { table, shape })
                }
                (None, _)
                    if (LayerGenes { mixer: None, ffn }).is_possible(tables)
                        && tables.ffn_alone =>
                {
                    None
                }
                (None, Some(last)) if last.mixer.is_some() => last.mixer,
                (None, _) => Some(MixerGenes { table: 0, shape: 0 }),
            };
            layers.push(LayerGenes { mixer, ffn });
        }
        layers.truncate(self.depth.max as usize);
        while layers.len() < self.depth.min as usize {
            layers.extend_from_within(..1);
        }
        Genome { d, layers }
    }

    fn mutate<R: Rng + ?Sized>(
        &self,
        tables: &Tables,
        genome: &Genome,
        rng: &mut R,
    ) -> Option<(Genome, String)> {
        let depth = genome.layers.len();
        let index = pick(rng, depth);
        let layer = genome.layers[index];
        match MOVES[pick(rng, MOVES.len())] {
            Move::Kind => {
                let kind = pick_other(rng, kinds(tables), layer.kind(tables))?;
                let mixer = mixer_of(tables, kind, |table| pick(rng, table.shapes(genome.d).len()));
                genome.change_mixer(tables, index, mixer)
            }
            Move::Parameter => {
                let own = layer.mixer?;
                let table = &tables.mixers[own.table];
                let genes = &table.shapes(genome.d)[own.shape].genes;
                let gene = pick(rng, table.drawn());
                let value = pick_other(rng, table.values(gene), genes[gene])?;
                let shape = table.with_gene(genome.d, genes, gene, value)?;
                Some(genome.change_shape(tables, index, own, shape))
            }
            Move::Ffn => {
                let ffn = pick_other(rng, tables.ffn.len(), layer.ffn)?;
                genome.change_ffn(tables, index, ffn)
            }
            Move::Insert if self.may_grow(genome) => {
                let at = pick(rng, depth + 1);
                Some(genome.insert(tables, at, random_layer(tables, genome.d, rng)))
            }
            Move::Duplicate if self.may_grow(genome) => Some(genome.duplicate(tables, index)),
            Move::Remove if self.may_shrink(genome) => Some(genome.remove(tables, index)),
            Move::Swap => {
                let other = pick_other(rng, depth, index)?;
                Some(genome.swap(tables, index, other))
            }
            Move::Width => {
                let d = pick_other(rng, tables.d_model.len(), genome.d)?;
                Some(genome.change_width(tables, d))
            }
            Move::Insert | Move::Duplicate | Move::Remove => None,
        }
    }

    /// Layer by layer from either parent when they are equally deep, else the head of one and the tail of the other.
    fn recombine<R: Rng + ?Sized>(
        &self,
        tables: &Tables,
        a: &Genome,
        b: &Genome,
        rng: &mut R,
    ) -> Genome {
        let (a, b) = if rng.random_bool(0.5) { (a, b) } else { (b, a) };
        let b = if a.d == b.d { b.clone() } else { b.change_width(tables, a.d).0 };
        let mut layers = Vec::new();
        if a.layers.len() == b.layers.len() && rng.random_bool(0.5) {
            for (&from_a, &from_b) in a.layers.iter().zip(&b.layers) {
                layers.push(if rng.random_bool(0.5) { from_a } else { from_b });
            }
        } else {
            layers.extend_from_slice(&a.layers[..pick(rng, a.layers.len() + 1)]);
            layers.extend_from_slice(&b.layers[pick(rng, b.layers.len() + 1)..]);
            layers.truncate(self.depth.max as usize);
            while layers.len() < self.depth.min as usize {
                layers.push(a.layers[layers.len() % a.layers.len()]);
            }
        }
        Genome { d: a.d, layers }
    }

    fn neighbours(&self, tables: &Tables, genome: &Genome) -> Vec<(Genome, String)> {
        let mut all = Vec::new();
        for (index, layer) in genome.layers.iter().enumerate() {
            let own_kind = layer.kind(tables);
            let other_mixers: Vec<Option<MixerGenes>> = (0..kinds(tables))
                .filter(|&kind| kind != own_kind)
                .map(|kind| mixer_of(tables, kind, |table| genome.nearest_to(tables, layer, table)))
                .collect();
            all.extend(
                other_mixers.iter().filter_map(|&mixer| genome.change_mixer(tables, index, mixer)),
            );
            if let Some(own) = layer.mixer {
                let table = &tables.mixers[own.table];
                let genes = &table.shapes(genome.d)[own.shape].genes;
                for gene in 0..table.genes.len() {
                    for value in (0..table.values(gene)).filter(|&value| value != genes[gene]) {
                        if let Some(shape) = table.with_gene(genome.d, genes, gene, value) {
                            all.push(genome.change_shape(tables, index, own, shape));
                        }
                    }
                }
            }
            for ffn in (0..tables.ffn.len()).filter(|&ffn| ffn != layer.ffn) {
                all.extend(genome.change_ffn(tables, index, ffn));
            }
            if self.may_grow(genome) {
                all.push(genome.duplicate(tables, index));
                for mixer in other_mixers {
                    let inserted = LayerGenes { mixer, ffn: layer.ffn };
                    if inserted.is_possible(tables) {
                        all.push(genome.insert(tables, index, inserted));
                        all.push(genome.insert(tables, index + 1, inserted));
                    }
                }
            }
            if self.may_shrink(genome) {
                all.push(genome.remove(tables, index));
            }
            for other in index + 1..genome.layers.len() {
                all.push(genome.swap(tables, index, other));
            }
        }
        for d in (0..tables.d_model.len()).filter(|&d| d != genome.d) {
            all.push(genome.change_width(tables, d));
        }
        all
    }

    fn size(&self, tables: &Tables) -> f64 {
        let at_width = |d: usize| {
            let layer = all_layers(tables, d).len() as f64;
            (self.depth.min..=self.depth.max).map(|depth| layer.powf(f64::from(depth))).sum::<f64>()
        };
        (0..tables.d_model.len()).map(at_width).sum()
    }

    fn all(&self, tables: &Tables) -> Vec<Genome> {
        let mut all = Vec::new();
        for d in 0..tables.d_model.len() {
            let layers = all_layers(tables, d);
            for depth in self.depth.min..=self.depth.max {
                all.extend(combinations(&vec![layers.len(); depth as usize]).map(|choice| {
                    Genome { d, layers: choice.into_iter().map(|index| layers[index]).collect() }
                }));
            }
        }
        all
    }
}

/// Every layer that exists at one d_model.
fn all_layers(tables: &Tables, d: usize) -> Vec<LayerGenes> {
    let mut mixers = Vec::new();
    for (table, mixer) in tables.mixers.iter().enumerate() {
        mixers.extend((0..mixer.shapes(d).len()).map(|shape| Some(MixerGenes { table, shape })));
    }
    mixers.extend(tables.ffn_alone.then_some(None));
    let with_ffns = |mixer| (0..tables.ffn.len()).map(move |ffn| LayerGenes { mixer, ffn });
    mixers.into_iter().flat_map(with_ffns).filter(|layer| layer.is_possible(tables)).collect()
}

impl Genome {
    fn with_layer(&self, index: usize, layer: LayerGenes) -> Self {
        let mut child = self.clone();
        child.layers[index] = layer;
        child
    }

    /// The shape of `table` nearest to a layer's mixer, the first if it has none.
    fn nearest_to(&self, tables: &Tables, layer: &LayerGenes, table: &MixerTable) -> usize {
        layer.mixer.map_or(0, |own| {
            let shape = &tables.mixers[own.table].shapes(self.d)[own.shape];
            table.nearest_shape(self.d, &shape.mixer)
        })
    }

    /// With another kind of mixer; none: the layer would be empty.
    fn change_mixer(
        &self,
        tables: &Tables,
        index: usize,
        mixer: Option<MixerGenes>,
    ) -> Option<(Self, String)> {
        let layer = self.layers[index];
        let changed = LayerGenes { mixer, ..layer };
        let (from, to) = (layer.name(tables), changed.name(tables));
        let what = format!("layer {index} mixer {from} → {to}");
        changed.is_possible(tables).then(|| (self.with_layer(index, changed), what))
    }

    fn change_shape(
        &self,
        tables: &Tables,
        index: usize,
        own: MixerGenes,
        shape: usize,
    ) -> (Self, String) {
        let layer = self.layers[index];
        let table = &tables.mixers[own.table];
        let shapes = table.shapes(self.d);
        let difference = table.difference(&shapes[own.shape], &shapes[shape]);
        let what = format!("layer {index} {} {difference}", table.kind.name());
        let mixer = Some(MixerGenes { shape, ..own });
        (self.with_layer(index, LayerGenes { mixer, ..layer }), what)
    }

    /// With another FFN; none: the layer would be empty.
    fn change_ffn(&self, tables: &Tables, index: usize, ffn: usize) -> Option<(Self, String)> {
        let layer = self.layers[index];
        let changed = LayerGenes { ffn, ..layer };
        let show = |ffn: usize| tables.show_ffn(self.d, ffn);
        let what = format!("layer {index} ffn {} → {}", show(layer.ffn), show(ffn));
        changed.is_possible(tables).then(|| (self.with_layer(index, changed), what))
    }

    fn insert(&self, tables: &Tables, at: usize, layer: LayerGenes) -> (Self, String) {
        let mut child = self.clone();
        child.layers.insert(at, layer);
        (child, format!("layer {at} {} inserted", layer.name(tables)))
    }

    fn duplicate(&self, tables: &Tables, index: usize) -> (Self, String) {
        let (child, _) = self.insert(tables, index, self.layers[index]);
        (child, format!("layer {index} {} duplicated", self.layers[index].name(tables)))
    }

    fn remove(&self, tables: &Tables, index: usize) -> (Self, String) {
        let mut child = self.clone();
        let removed = child.layers.remove(index);
        (child, format!("layer {index} {} removed", removed.name(tables)))
    }

    fn swap(&self, tables: &Tables, a: usize, b: usize) -> (Self, String) {
        let mut child = self.clone();
        child.layers.swap(a, b);
        let name = |index: usize| self.layers[index].name(tables);
        let (first, second) = (a.min(b), a.max(b));
        (child, format!("layers {first} {} and {second} {} swapped", name(first), name(second)))
    }

    /// The same genes at another width; a shape that does not exist there becomes the one most like it.
    fn change_width(&self, tables: &Tables, d: usize) -> (Self, String) {
        let layers = self.layers.iter().map(|layer| {
            let mixer = layer.mixer.map(|own| {
                let table = &tables.mixers[own.table];
                let genes = &table.shapes(self.d)[own.shape].genes;
                MixerGenes { shape: table.most_like(d, genes), ..own }
            });
            LayerGenes { mixer, ..*layer }
        });
        let child = Self { d, layers: layers.collect() };
        (child, format!("d_model {} → {}", tables.d_model[self.d], tables.d_model[d]))
    }
}
