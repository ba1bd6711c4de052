-- What a crash would leave unpaid, one row a gateway that has paid calls in flight.
create table calls_in_flight (
  node_id  uuid primary key,
  calls    integer not null,
  beats    bigint not null,
  constraint calls_in_flight_positive check (calls > 0)
);
comment on column calls_in_flight.beats is 'rises every second while the gateway lives: a row whose beats stand still is of one that died';
