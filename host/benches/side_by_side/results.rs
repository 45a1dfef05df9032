//! Figures, and the file that they are kept in: written after every measurement, so that a run can go on where it ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine::{self, Machine};
use crate::options::{Options, Scale};

/// What one measurement found, by name.
pub type Figures = BTreeMap<String, f64>;

/// Figures from pairs.
pub fn figures<const N: usize>(pairs: [(&str, f64); N]) -> Figures {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    pub variant: String,
    pub round: usize,
    pub figures: Figures,
}

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Of the first measurement.
    pub date: String,
    /// Commits of this repository that were measured: one, unless a run was resumed.
    pub revisions: Vec<String>,
    pub machine: Machine,
    pub scale: Scale,
    pub measurements: Vec<Measurement>,
}

pub struct Results {
    path: PathBuf,
    /// Of what is measured now.
    revision: String,
    pub document: Document,
}

impl Results {
    /// What the file has, when that is to be kept; else nothing.
    pub fn open(options: &Options) -> Result<Results, String> {
        // Found now and not after the first measurement.
        let folder = options.file.parent().filter(|folder| !folder.is_dir());
        if let Some(folder) = folder {
            return Err(format!("--file {}: there is no folder {}", options.file.display(), folder.display()));
        }
        let (machine, scale) = (Machine::here(), options.scale.clone());
        let fresh =
            Document { date: machine::today(), machine, scale, revisions: Vec::new(), measurements: Vec::new() };
        let document = match options.resume.then(|| load(&options.file)).transpose()?.flatten() {
            None => fresh,
            Some(kept) if kept.scale == fresh.scale && kept.machine == fresh.machine => kept,
            Some(_) => {
                let file = options.file.display();
                return Err(format!("{file} is from another machine or measured with other numbers; drop --resume"));
            }
        };
        Ok(Results { path: options.file.clone(), revision: machine::revision(), document })
    }

    pub fn has(&self, variant: &str, round: usize) -> bool {
        self.document.measurements.iter().any(|one| one.variant == variant && one.round == round)
    }

    pub fn add(&mut self, variant: &str, round: usize, figures: Figures) {
        if !self.document.revisions.contains(&self.revision) {
            self.document.revisions.push(self.revision.clone());
        }
        self.document.measurements.push(Measurement { variant: variant.to_owned(), round, figures });
        let text = serde_json::to_string_pretty(&self.document).expect("figures can be written");
        // Beside it first: a run that is interrupted here must not lose what it has.
        let beside = self.path.with_extension("json.new");
        std::fs::write(&beside, text + "\n").unwrap_or_else(|error| panic!("{}: {error}", beside.display()));
        std::fs::rename(&beside, &self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
    }

    /// How many there were of what was measured most often.
    pub fn rounds(&self) -> usize {
        self.document.measurements.iter().map(|one| one.round + 1).max().unwrap_or_default()
    }

    /// The same of one variant.
    pub fn rounds_of(&self, variant: &str) -> usize {
        self.document.measurements.iter().filter(|one| one.variant == variant).count()
    }

    /// The median over the rounds; `None` where nothing was measured.
    pub fn median(&self, variant: &str, figure: &str) -> Option<f64> {
        let measurements = self.document.measurements.iter().filter(|one| one.variant == variant);
        median(measurements.filter_map(|one| one.figures.get(figure)).copied().collect())
    }

    /// The median over all measurements of what others used of the machine, in cores.
    pub fn others(&self) -> Option<f64> {
        median(self.document.measurements.iter().filter_map(|one| one.figures.get(OTHERS)).copied().collect())
    }
}

/// The figure that every measurement on the broker has: cores that others kept busy.
pub const OTHERS: &str = "others_cores";

/// The one in the middle, or what lies between the two there.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

fn load(path: &Path) -> Result<Option<Document>, String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| format!("{}: {error}", path.display())),
    }
}
