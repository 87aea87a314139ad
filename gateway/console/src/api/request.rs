//! What handlers take out of a request, each answering with a problem where it cannot.

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::body;
use super::field_reader::FieldReader;
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
pub struct Query(pub FieldReader);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Query(FieldReader::of_query(parts.uri.query())))
    }
}

/// The fields of a small JSON body.
pub struct JsonFields(pub FieldReader);

impl<S: Send + Sync> FromRequest<S> for JsonFields {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let body = body::read_body(request.into_body(), body::SETTING_LIMIT).await?;
        FieldReader::of_body(&body).map(JsonFields)
    }
}

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
