-- The four roles of Trueup and its database. Run once by a superuser, before the first migration:
--
--   psql -v ON_ERROR_STOP=1 -v owner=… -v ingest=… -v console=… -v worker=… -f roles.sql
--
-- The variables are the four passwords. Running it again sets the passwords again and harms nothing.
-- What each role may do with which table is granted by `trueup-worker migrate`, each time anew.

\set ON_ERROR_STOP on

SELECT format('CREATE ROLE %I LOGIN', name)
  FROM (VALUES ('trueup_owner'), ('trueup_ingest'), ('trueup_console'), ('trueup_worker')) AS wanted (name)
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

ALTER ROLE trueup_owner   WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'owner';
ALTER ROLE trueup_ingest  WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'ingest'
    CONNECTION LIMIT 64;
ALTER ROLE trueup_console WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'console'
    CONNECTION LIMIT 64;
ALTER ROLE trueup_worker  WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'worker'
    CONNECTION LIMIT 64;

-- The public process reads one small view, briefly.
ALTER ROLE trueup_ingest SET statement_timeout = '10s';
ALTER ROLE trueup_ingest SET default_transaction_read_only = on;

SELECT 'CREATE DATABASE trueup OWNER trueup_owner'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'trueup')
\gexec

ALTER DATABASE trueup OWNER TO trueup_owner;
REVOKE ALL ON DATABASE trueup FROM PUBLIC;
GRANT CONNECT ON DATABASE trueup TO trueup_ingest, trueup_console, trueup_worker;

\connect trueup

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO trueup_owner;
-- Functions are everybody's by default: ours make and drop partitions.
ALTER DEFAULT PRIVILEGES FOR ROLE trueup_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
