-- Chat: sessions, whose turns are orders that were charged when they ended; letters to be sent.

create table sessions (
  id             text primary key,
  account_id     uuid not null,
  subject_id     uuid not null,
  agent_id       uuid not null,
  node_id        uuid not null,
  term           bigint not null default 1,
  status         text not null default 'active',
  price          bigint not null,
  message_count  integer not null default 0,
  consumed       bigint not null default 0,
  started_at     timestamptz not null,
  parked_at      timestamptz,
  interrupted    boolean not null default false,
  closed_at      timestamptz,
  close_reason   text,
  erased_at      timestamptz,
  constraint sessions_status_known check (status in ('active', 'closed')),
  constraint sessions_closed_at_known check ((status = 'closed') = (closed_at is not null)),
  constraint sessions_counts_not_negative check (message_count >= 0 and consumed >= 0 and price >= 0)
);
create index sessions_account on sessions (account_id, id desc);
create index sessions_active on sessions (node_id) where status = 'active';
create index sessions_unerased on sessions (closed_at) where closed_at is not null and erased_at is null;
comment on column sessions.node_id is 'of the node that holds its socket, or held it last';
comment on column sessions.term is 'raised by each node that takes the session over: a turn of an earlier term is refused';
comment on column sessions.parked_at is 'left in good order by a node that stopped; null while a node has it, and when that node died';
comment on column sessions.interrupted is 'a turn was cut off when it was parked';

-- A node with sessions says that it lives. Sessions of one that stopped saying so are closed when nobody took them over.
create table chat_nodes (
  id       uuid primary key,
  seen_at  timestamptz not null
);

alter table orders
  add column session_id text,
  add column message_id text,
  add column message_index integer,
  add constraint orders_turn_whole check ((session_id is null) = (message_index is null)),
  add constraint orders_turn_ended check (session_id is null or status = 'completed');
create unique index orders_turn on orders (session_id, message_index) where session_id is not null;
create unique index orders_message_once on orders (session_id, message_id) where message_id is not null;
comment on column orders.session_id is 'of a chat turn: it was charged when it ended, from its session''s hold, and never reserved';
comment on column orders.message_id is 'the client''s own name for its message: a turn with the same one is never run again';

-- Turns cancelled after the agent had begun to answer, by buyer, agent and UTC day.
create table late_cancels (
  account_id  uuid not null,
  agent_id    uuid not null,
  day         date not null,
  cancels     integer not null,
  primary key (account_id, agent_id, day)
);
create index late_cancels_agent on late_cancels (agent_id, day);

-- Letters that must arrive. Their text is made when they are sent.
create table letters (
  id               uuid primary key,
  kind             text not null,
  account_id       uuid not null,
  session_id       text not null,
  created_at       timestamptz not null,
  attempts         integer not null default 0,
  next_attempt_at  timestamptz not null,
  sent_at          timestamptz,
  failed_at        timestamptz,
  last_error       text,
  constraint letters_kind_known check (kind in ('receipt')),
  constraint letters_once unique (session_id, kind)
);
create index letters_due on letters (next_attempt_at) where sent_at is null and failed_at is null;
