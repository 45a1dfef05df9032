//! The `metrics` import (`wit/metrics.wit`): what a guest asks for and counts goes to its pipeline's figures, which bound it.

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker};

use super::contract;
use super::instance::State;
use crate::handler_metrics::{Labels, NewMetric, Series};

/// What a handler asks for.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(variant)]
enum NewKind {
    #[component(name = "counter")]
    Counter,
    #[component(name = "gauge")]
    Gauge,
    #[component(name = "histogram")]
    Histogram(Vec<f64>),
}

impl From<NewKind> for NewMetric {
    fn from(kind: NewKind) -> Self {
        match kind {
            NewKind::Counter => Self::Counter,
            NewKind::Gauge => Self::Gauge,
            NewKind::Histogram(bounds) => Self::Histogram(bounds),
        }
    }
}

/// What an instance knows of the series that it asked for: by the number that it got.
#[derive(Debug, Default)]
pub(super) struct Numbers(Vec<Arc<Series>>);

impl Numbers {
    /// A series has one number in an instance, however often it is asked for; so this is as bounded as series are.
    fn number(&mut self, series: Arc<Series>) -> u32 {
        let known = self.0.iter().position(|known| Arc::ptr_eq(known, &series));
        let number = known.unwrap_or_else(|| {
            self.0.push(series);
            self.0.len() - 1
        });
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    fn get(&self, number: u32) -> wasmtime::Result<&Series> {
        match self.0.get(number as usize) {
            Some(series) => Ok(series),
            None => wasmtime::bail!("metrics: {number} is the number of no series that this instance was given"),
        }
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut metrics = linker.instance(&contract::full_name("metrics"))?;
    metrics.func_wrap(
        "series",
        |mut store: StoreContextMut<'_, State>, (kind, name, labels): (NewKind, String, Labels)| {
            let State { config, series, .. } = store.data_mut();
            let limit = u64::from(config.limits.metric_series);
            let found = config.metrics.series(&kind.into(), &name, labels, limit);
            Ok((found.map(|found| series.number(found)),))
        },
    )?;
    metrics.func_wrap("add", |store: StoreContextMut<'_, State>, (number, value): (u32, u64)| {
        wasmtime::ensure!(store.data().series.get(number)?.add(value), "metrics: add to what is no counter");
        Ok(())
    })?;
    metrics.func_wrap("set", |store: StoreContextMut<'_, State>, (number, value): (u32, f64)| {
        wasmtime::ensure!(store.data().series.get(number)?.set(value), "metrics: set of what is no gauge");
        Ok(())
    })?;
    metrics.func_wrap("observe", |store: StoreContextMut<'_, State>, (number, value): (u32, f64)| {
        wasmtime::ensure!(store.data().series.get(number)?.observe(value), "metrics: observe by what is no histogram");
        Ok(())
    })
}
