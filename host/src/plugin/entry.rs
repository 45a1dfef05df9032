//! What is run in a store: the start of its instance, and calls of the instance's exports. Knows types; limits and turns are
//! `instance`'s.

use std::future::Future;
use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Func, Lift, Lower, TypedFunc};

use super::instance::State;
use super::version::Version;

/// Exported functions of this instance. A frame form is looked up in preference to its typed form.
#[derive(Clone, Copy, Default)]
pub(super) struct Calls {
    pub message_frames: Option<Func>,
    pub message_handler: Option<Func>,
    pub batch_frames: Option<Func>,
    pub batch_handler: Option<Func>,
    pub tick: Option<Func>,
    pub partition_assigned: Option<Func>,
    pub partition_revoked: Option<Func>,
    pub handle_failed: Option<Func>,
    pub snapshot: Option<Func>,
    pub restore: Option<Func>,
}

/// Something that runs guest code in a store.
pub(super) trait Entry {
    /// What it gives.
    type Answer;
    /// Runs it.
    fn call(
        self,
        store: &mut Store<State>,
        version: &Version,
    ) -> impl Future<Output = wasmtime::Result<Self::Answer>> + Send;
}

/// Instantiation and `init`. The inner error is `init`'s own.
pub(super) struct Starting;

impl Entry for Starting {
    type Answer = Result<Calls, String>;

    async fn call(self, store: &mut Store<State>, version: &Version) -> wasmtime::Result<Self::Answer> {
        let instance = version.pre.instantiate_async(&mut *store).await?;
        let exports = &version.exports;
        if let Some(init) = &exports.init {
            let settings = Arc::clone(&store.data().config.settings);
            let init = instance.get_typed_func::<(&str,), (Result<(), String>,)>(&mut *store, init)?;
            if let (Err(text),) = init.call_async(&mut *store, (&settings,)).await? {
                return Ok(Err(text));
            }
        }
        let mut find = |export: &Option<ComponentExportIndex>| instance.get_func(&mut *store, export.as_ref()?);
        Ok(Ok(Calls {
            message_frames: find(&exports.message_frames),
            message_handler: find(&exports.message_handler),
            batch_frames: find(&exports.batch_frames),
            batch_handler: find(&exports.batch_handler),
            tick: find(&exports.tick),
            partition_assigned: find(&exports.partition_assigned),
            partition_revoked: find(&exports.partition_revoked),
            handle_failed: find(&exports.handle_failed),
            snapshot: find(&exports.snapshot),
            restore: find(&exports.restore),
        }))
    }
}

/// A call of an export.
pub(super) struct Call<P, R> {
    function: TypedFunc<P, R>,
    params: P,
}

impl<P, R> Call<P, R>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    /// The parameters borrow, so that the typed function cannot be kept between calls, and comparing types again at
    /// every call would cost more than the call.
    ///
    /// # Safety
    /// The function takes `P` and gives `R`.
    pub(super) unsafe fn new(function: Func, params: P) -> Self {
        // SAFETY: promised by the caller.
        Self { function: unsafe { TypedFunc::new_unchecked(function) }, params }
    }
}

impl<P, R> Entry for Call<P, R>
where
    P: ComponentNamedList + Lower + Send + Sync,
    R: ComponentNamedList + Lift + Send + Sync + 'static,
{
    type Answer = R;

    async fn call(self, store: &mut Store<State>, _version: &Version) -> wasmtime::Result<R> {
        self.function.call_async(store, self.params).await
    }
}
