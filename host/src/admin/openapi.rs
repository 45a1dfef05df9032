//! Every page of the port, in one table: what `/` lists, what a wrong path is told, and `/openapi.json`. The forms of bodies
//! are read off examples of the very types that are sent, so they cannot say anything else.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::view::{
    ComponentView, DeployRequest, OperationView, PartitionList, PartitionView, PauseRequest, PipelineList,
    PipelineView, SwapView, VersionList, VersionView, Why,
};

/// One thing that can be asked for.
pub struct Page {
    method: &'static str,
    /// With `{…}` for what the caller puts there.
    pub path: &'static str,
    says: &'static str,
    /// What the body has to be, by the name of its form.
    takes: Option<&'static str>,
    /// What comes back: the status, and the name of the body's form, where it has one.
    gives: (u16, Option<&'static str>),
}

const fn get(path: &'static str, gives: &'static str, says: &'static str) -> Page {
    Page { method: "get", path, says, takes: None, gives: (200, Some(gives)) }
}

const fn plain(path: &'static str, says: &'static str) -> Page {
    Page { method: "get", path, says, takes: None, gives: (200, None) }
}

const fn begins(path: &'static str, takes: Option<&'static str>, says: &'static str) -> Page {
    Page { method: "post", path, says, takes, gives: (202, Some("Operation")) }
}

/// Every page.
pub const PAGES: [Page; 16] = [
    plain("/livez", "200 while the process answers"),
    plain("/readyz", "200 when every pipeline is running, else 503, with the reasons"),
    plain("/startupz", "200 once every pipeline has joined its group"),
    plain("/metrics", "OpenMetrics text, for Prometheus"),
    plain("/openapi.json", "this, for programs"),
    get("/v1/pipelines", "PipelineList", "what every pipeline is doing, and why it is not"),
    get("/v1/pipelines/{name}", "Pipeline", "the same of one"),
    get("/v1/pipelines/{name}/partitions", "PartitionList", "its partitions"),
    begins("/v1/pipelines/{name}/pause", Some("PauseRequest"), "offer nothing new, stay in the group"),
    begins("/v1/pipelines/{name}/resume", None, "go on"),
    get("/v1/pipelines/{name}/versions", "VersionList", "versions that are kept, the current one first"),
    begins("/v1/pipelines/{name}/deployments", Some("DeployRequest"), "run another version; If-Match: its generation"),
    begins("/v1/pipelines/{name}/rollback", Some("DeployRequest"), "run an earlier version again"),
    Page {
        method: "post",
        path: "/v1/components",
        says: "keep a component (application/wasm), so that it can be deployed by its digest",
        takes: Some(WASM),
        gives: (201, Some("Component")),
    },
    get("/v1/operations/{id}", "Operation", "how far a long action is; ?wait=SECONDS for its next step"),
    Page {
        method: "delete",
        path: "/v1/operations/{id}",
        says: "cancel it: a deployment goes back to the version before",
        takes: None,
        gives: (202, Some("Operation")),
    },
];

/// Takes the place of a form's name for what is no JSON.
const WASM: &str = "application/wasm";

/// One line per page.
pub fn index() -> String {
    let line = |page: &Page| format!("{:<6} {:<34} {}\n", page.method.to_uppercase(), page.path, page.says);
    PAGES.iter().map(line).collect()
}

/// The whole document.
pub fn document() -> Value {
    let mut paths = json!({});
    for page in &PAGES {
        paths[page.path][page.method] = operation(page);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "sluicebox admin API", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": forms(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        // From this machine none is needed.
        "security": [{}, { "token": [] }],
    })
}

fn operation(page: &Page) -> Value {
    let (status, form) = page.gives;
    let body = form.map(|form| json!({ "application/json": { "schema": reference(form) } }));
    let mut answer = json!({ "description": page.says });
    if let Some(body) = body {
        answer["content"] = body;
    }
    let problem = json!({ "application/problem+json": { "schema": reference("Problem") } });
    let mut operation = json!({
        "summary": page.says,
        "responses": { status.to_string(): answer, "default": { "description": "what is wrong", "content": problem } },
    });
    let parameters: Vec<Value> = page.path.split('/').filter_map(parameter).collect();
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    match page.takes {
        Some(WASM) => {
            operation["requestBody"] = json!({ "required": true, "content": { WASM: { "schema": { "type": "string", "format": "binary" } } } });
        }
        Some(form) => {
            operation["requestBody"] = json!({ "content": { "application/json": { "schema": reference(form) } } });
        }
        None => {}
    }
    operation
}

fn parameter(part: &str) -> Option<Value> {
    let name = part.strip_prefix('{')?.strip_suffix('}')?;
    Some(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
}

fn reference(form: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{form}") })
}

/// The form of every body, by its name.
fn forms() -> Value {
    let text = || Some(String::new());
    let why = Why { partition: text(), seconds: Some(0), next: vec![String::new()], ..Why::default() };
    let swap = SwapView { reason: text(), ..SwapView::default() };
    let pipeline = PipelineView {
        reason: text(),
        generation: Some(0),
        swap: Some(swap),
        why: vec![why],
        ..PipelineView::default()
    };
    let partition = PartitionView {
        reason: text(),
        committed: Some(0),
        committable: Some(0),
        lag: Some(0),
        stalled_seconds: Some(0),
        ..PartitionView::default()
    };
    let operation = OperationView { hint: text(), code: text(), result: json!({}), ..OperationView::default() };
    let deploy = DeployRequest {
        digest: text(),
        manifest: text(),
        strategy: text(),
        canary_percent: Some(0),
        canary_seconds: Some(0),
        dry_run: false,
        timeout_seconds: Some(0),
    };
    let problem = Problem::new(axum::http::StatusCode::BAD_REQUEST, "", "").hint("").at("");
    json!({
        "PipelineList": form(&PipelineList { pipelines: vec![pipeline.clone()] }),
        "Pipeline": form(&pipeline),
        "PartitionList": form(&PartitionList { partitions: vec![partition] }),
        "PauseRequest": form(&PauseRequest { reason: text() }),
        "VersionList": form(&VersionList {
            versions: vec![VersionView { settings: text(), ..VersionView::default() }],
            ..VersionList::default()
        }),
        "Component": form(&ComponentView::default()),
        "DeployRequest": form(&deploy),
        "Operation": form(&operation),
        "Problem": form(&problem),
    })
}

/// The form of an example in which nothing is missing.
fn form(example: &impl Serialize) -> Value {
    // Plain data with text keys: there is nothing that could not be written.
    form_of(&serde_json::to_value(example).unwrap_or_default())
}

fn form_of(example: &Value) -> Value {
    match example {
        Value::Null => json!({}),
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => json!({ "type": "integer" }),
        Value::String(_) => json!({ "type": "string" }),
        Value::Array(items) => json!({ "type": "array", "items": items.first().map_or(json!({}), form_of) }),
        Value::Object(fields) => {
            let properties: Map<String, Value> =
                fields.iter().map(|(name, example)| (name.clone(), form_of(example))).collect();
            json!({ "type": "object", "properties": properties })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: the document has every route that is served, and none that is not. Method: the routes are read off the very
    /// source that makes them; which methods each of them has is asked of a port in `admin/tests.rs`.
    #[test]
    fn every_route_is_in_the_document() {
        let sources = [include_str!("mod.rs"), include_str!("api.rs")];
        let routes = |source: &'static str| source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let mut served: Vec<&str> = sources.into_iter().flat_map(routes).filter(|path| *path != "/").collect();
        served.sort_unstable();
        let document = document();
        let mut said: Vec<&str> = document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        said.sort_unstable();
        assert_eq!(said, served);
    }

    /// Proves: every form that a page names is there, none is there that no page names, and nothing in one was left open for
    /// want of an example.
    #[test]
    fn every_form_is_said() {
        let document = document();
        let forms = document["components"]["schemas"].as_object().expect("forms");
        let mut named: Vec<&str> = vec!["Problem"];
        for page in &PAGES {
            named.extend(page.takes.filter(|takes| *takes != WASM).into_iter().chain(page.gives.1));
        }
        named.sort_unstable();
        named.dedup();
        let mut there: Vec<&str> = forms.keys().map(String::as_str).collect();
        there.sort_unstable();
        assert_eq!(named, there);
        let text = serde_json::to_string(forms).expect("text");
        assert!(!text.contains("\"items\":{}"), "an example has an empty list: {text}");
        let open: Vec<_> = text.match_indices(":{}").collect();
        assert_eq!(open.len(), 1, "only what an operation results in depends on its kind: {text}");
        assert_eq!(forms["Operation"]["properties"]["result"]["properties"], json!({}));
        assert_eq!(forms["Pipeline"]["properties"]["swap"]["properties"]["gap_us"]["items"]["type"], "integer");
        assert_eq!(document["paths"]["/v1/pipelines/{name}"]["get"]["parameters"][0]["name"], "name");
    }
}
