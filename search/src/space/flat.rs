//! The flat form: a list of layers, each with its own mixer, shape and FFN.

use rand::{Rng, RngExt};

use super::config::{Range, SpaceConfig};
use super::error::{SpaceError, SpaceViolation, invalid};
use super::form::{Form, pick, pick_other};
use super::tables::{Tables, combinations};
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

/// Indices into the tables: which mixer, which of its shapes at this d_model, which FFN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LayerGenes {
    table: usize,
    shape: usize,
    ffn: usize,
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
    let table = pick(rng, tables.mixers.len());
    LayerGenes {
        table,
        shape: pick(rng, tables.mixers[table].shapes(d).len()),
        ffn: pick(rng, tables.ffn.len()),
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
            mixer: Some(tables.mixers[layer.table].shapes(genome.d)[layer.shape].mixer),
            ffn_width: tables.ffn[layer.ffn].width(d_model),
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
            let mixer = layer.mixer.ok_or_else(|| refuse("no mixer".to_owned()))?;
            let table = tables.table(mixer.kind()).ok_or_else(|| refuse(mixer.to_string()))?;
            let shape = tables.mixers[table]
                .index_of(d, &mixer)
                .ok_or_else(|| refuse(mixer.to_string()))?;
            let ffn = tables.ffn_index(d, layer.ffn_width).ok_or_else(|| {
                refuse(
                    layer
                        .ffn_width
                        .map_or_else(|| "no FFN".to_owned(), |width| format!("an FFN of {width}")),
                )
            })?;
            Ok(LayerGenes { table, shape, ffn })
        });
        Ok(Genome { d, layers: layers.collect::<Result<_, _>>()? })
    }

    fn project(&self, tables: &Tables, architecture: &Architecture) -> Genome {
        let d = tables.nearest_d_model(architecture.d_model());
        let mut layers: Vec<LayerGenes> = Vec::new();
        for layer in architecture.layers() {
            let ffn = tables.nearest_ffn(d, layer.ffn_width);
            match (layer.mixer, layers.last()) {
                (Some(mixer), _) => {
                    let table = tables.table(mixer.kind()).unwrap_or(0);
                    layers.push(LayerGenes {
                        table,
                        shape: tables.mixers[table].nearest_shape(d, &mixer),
                        ffn,
                    });
                }
                (None, Some(&last)) => layers.push(LayerGenes { ffn, ..last }),
                (None, None) => layers.push(LayerGenes { table: 0, shape: 0, ffn }),
            }
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
                let table = pick_other(rng, tables.mixers.len(), layer.table)?;
                let shape = pick(rng, tables.mixers[table].shapes(genome.d).len());
                Some(genome.change_kind(tables, index, table, shape))
            }
            Move::Parameter => {
                let table = &tables.mixers[layer.table];
                let shapes = table.shapes(genome.d);
                let gene = pick(rng, table.drawn());
                let value = pick_other(rng, table.values(gene), shapes[layer.shape].genes[gene])?;
                let shape = table.with_gene(genome.d, &shapes[layer.shape].genes, gene, value)?;
                Some(genome.change_shape(tables, index, shape))
            }
            Move::Ffn => {
                let ffn = pick_other(rng, tables.ffn.len(), layer.ffn)?;
                Some(genome.change_ffn(tables, index, ffn))
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
            let own = &tables.mixers[layer.table];
            let own_shape = &own.shapes(genome.d)[layer.shape];
            for (table, other) in
                tables.mixers.iter().enumerate().filter(|&(table, _)| table != layer.table)
            {
                let shape = other.nearest_shape(genome.d, &own_shape.mixer);
                all.push(genome.change_kind(tables, index, table, shape));
            }
            for gene in 0..own.genes.len() {
                for value in (0..own.values(gene)).filter(|&value| value != own_shape.genes[gene]) {
                    if let Some(shape) = own.with_gene(genome.d, &own_shape.genes, gene, value) {
                        all.push(genome.change_shape(tables, index, shape));
                    }
                }
            }
            for ffn in (0..tables.ffn.len()).filter(|&ffn| ffn != layer.ffn) {
                all.push(genome.change_ffn(tables, index, ffn));
            }
            if self.may_grow(genome) {
                all.push(genome.duplicate(tables, index));
                for (table, other) in
                    tables.mixers.iter().enumerate().filter(|&(table, _)| table != layer.table)
                {
                    let shape = other.nearest_shape(genome.d, &own_shape.mixer);
                    let inserted = LayerGenes { table, shape, ffn: layer.ffn };
                    all.push(genome.insert(tables, index, inserted));
                    all.push(genome.insert(tables, index + 1, inserted));
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
    let mut layers = Vec::new();
    for (table, mixer) in tables.mixers.iter().enumerate() {
        for shape in 0..mixer.shapes(d).len() {
            layers.extend((0..tables.ffn.len()).map(|ffn| LayerGenes { table, shape, ffn }));
        }
    }
    layers
}

impl Genome {
    fn with_layer(&self, index: usize, layer: LayerGenes) -> Self {
        let mut child = self.clone();
        child.layers[index] = layer;
        child
    }

    fn change_kind(
        &self,
        tables: &Tables,
        index: usize,
        table: usize,
        shape: usize,
    ) -> (Self, String) {
        let layer = self.layers[index];
        let (from, to) = (tables.mixers[layer.table].kind.name(), tables.mixers[table].kind.name());
        (
            self.with_layer(index, LayerGenes { table, shape, ..layer }),
            format!("layer {index} mixer {from} → {to}"),
        )
    }

    fn change_shape(&self, tables: &Tables, index: usize, shape: usize) -> (Self, String) {
        let layer = self.layers[index];
        let table = &tables.mixers[layer.table];
        let shapes = table.shapes(self.d);
        let difference = table.difference(&shapes[layer.shape], &shapes[shape]);
        let what = format!("layer {index} {} {difference}", table.kind.name());
        (self.with_layer(index, LayerGenes { shape, ..layer }), what)
    }

    fn change_ffn(&self, tables: &Tables, index: usize, ffn: usize) -> (Self, String) {
        let layer = self.layers[index];
        let show = |ffn: usize| {
            tables.ffn[ffn]
                .width(tables.d_model[self.d])
                .map_or_else(|| "none".to_owned(), |width| width.to_string())
        };
        let what = format!("layer {index} ffn {} → {}", show(layer.ffn), show(ffn));
        (self.with_layer(index, LayerGenes { ffn, ..layer }), what)
    }

    fn insert(&self, tables: &Tables, at: usize, layer: LayerGenes) -> (Self, String) {
        let mut child = self.clone();
        child.layers.insert(at, layer);
        (child, format!("layer {at} {} inserted", tables.mixers[layer.table].kind.name()))
    }

    fn duplicate(&self, tables: &Tables, index: usize) -> (Self, String) {
        let (child, _) = self.insert(tables, index, self.layers[index]);
        (
            child,
            format!(
                "layer {index} {} duplicated",
                tables.mixers[self.layers[index].table].kind.name()
            ),
        )
    }

    fn remove(&self, tables: &Tables, index: usize) -> (Self, String) {
        let mut child = self.clone();
        let removed = child.layers.remove(index);
        (child, format!("layer {index} {} removed", tables.mixers[removed.table].kind.name()))
    }

    fn swap(&self, tables: &Tables, a: usize, b: usize) -> (Self, String) {
        let mut child = self.clone();
        child.layers.swap(a, b);
        let name = |index: usize| tables.mixers[self.layers[index].table].kind.name();
        let (first, second) = (a.min(b), a.max(b));
        (child, format!("layers {first} {} and {second} {} swapped", name(first), name(second)))
    }

    /// The same genes at another width; a shape that does not exist there becomes the one most like it.
    fn change_width(&self, tables: &Tables, d: usize) -> (Self, String) {
        let layers = self.layers.iter().map(|layer| {
            let table = &tables.mixers[layer.table];
            let genes = &table.shapes(self.d)[layer.shape].genes;
            LayerGenes { shape: table.most_like(d, genes), ..*layer }
        });
        let child = Self { d, layers: layers.collect() };
        (child, format!("d_model {} → {}", tables.d_model[self.d], tables.d_model[d]))
    }
}
