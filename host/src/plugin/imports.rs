//! What a handler may import from us: `log`, `settings`, `outputs` (wit/log.wit, wit/settings.wit, wit/outputs.wit).
//! Plain functions without a span per call: a log call happens as often as the guest likes.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower, WasmStr};

use super::contract;
use super::instance::State;
use super::output::LogLevel;

/// A declared output, as the handler sees it.
#[derive(Clone, Debug, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct OutputInfo {
    /// Its declared name.
    pub name: String,
    /// How many partitions its topic has; at least 1.
    pub partitions: u32,
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut log = linker.instance(&contract::full_name("log"))?;
    log.func_wrap("log", |store: StoreContextMut<'_, State>, (level, message): (LogLevel, WasmStr)| {
        // Looked at first: what nobody sees is not even read.
        if store.data().output.enabled(level) {
            let message = message.to_str(&store)?;
            store.data().output.log(level, &message);
        }
        Ok(())
    })?;
    log.func_wrap("enabled", |store: StoreContextMut<'_, State>, (level,): (LogLevel,)| {
        Ok((store.data().output.enabled(level),))
    })?;

    let mut settings = linker.instance(&contract::full_name("settings"))?;
    settings.func_wrap("get", |store: StoreContextMut<'_, State>, (): ()| {
        Ok((store.data().config.settings.as_ref().to_owned(),))
    })?;

    let mut outputs = linker.instance(&contract::full_name("outputs"))?;
    outputs.func_wrap("outputs", |store: StoreContextMut<'_, State>, (): ()| {
        Ok((store.data().config.outputs.to_vec(),))
    })?;
    outputs.func_wrap("batchers", |store: StoreContextMut<'_, State>, (): ()| {
        Ok((store.data().config.batchers.to_vec(),))
    })?;
    Ok(())
}
