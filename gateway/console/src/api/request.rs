//! What handlers take out of a request, each answering with a problem where it cannot.

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::body;
use super::list::ListParams;
use crate::problem::Problem;
use crate::request_fields::RequestFields;

/// The `{id}` of a path. A text that is no UUID is the id of nothing.
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(Path(text)) = Path::<String>::from_request_parts(parts, state).await else {
            return Err(Problem::no_route());
        };
        Uuid::try_parse(&text)
            .map(Id)
            .map_err(|_| Problem::not_found("object: an id is a UUID"))
    }
}

/// The parameters of the query string.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let fields = RequestFields::of_query(parts.uri.query());
        Ok(Query(fields.read_params()?))
    }
}

/// The parameters of a list: what is looked for, and which page of it.
pub struct ListQuery<T>(pub T, pub ListParams);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ListQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut filter = RequestFields::of_query(parts.uri.query());
        let page = filter.split_off(&["limit", "cursor"]);
        match (page.read_params(), filter.read_params()) {
            (Ok(page), Ok(filter)) => Ok(ListQuery(filter, page)),
            (Err(page), Err(filter)) => Err(page.and(filter).into()),
            (Err(bad), _) | (_, Err(bad)) => Err(bad.into()),
        }
    }
}

/// A list that is not searched.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct All {}

/// A small JSON body, read into the struct that describes it.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + PartialSchema> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let body = body::read_body(request.into_body(), body::SETTING_LIMIT).await?;
        Ok(JsonBody(RequestFields::of_body(&body)?.read()?))
    }
}

/// A body that has nothing to say: none, or an object without fields.
pub struct EmptyBody;

impl<S: Send + Sync> FromRequest<S> for EmptyBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let JsonBody(NoFields {}) = JsonBody::from_request(request, state).await?;
        Ok(EmptyBody)
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NoFields {}
