// The shapes of what /api/dashboard/events tells; see punch/dashboard/_rows.py, which makes them.
// Times are seconds since 1970, durations seconds, sizes bytes; null is "not known".

/** @typedef {{here?: string, elsewhere?: ?string, closed?: ?string, invite?: ?string}} Join */

/** @typedef {{id: string, name: string, digits: string, host: string, state: string, seconds: number, said: string, may: boolean}} Newcomer */

/** @typedef {{machine: string, name: ?string, state: string, here: boolean, connected: boolean, admin: boolean, scopes: string[], owner: ?string, ends: ?number, seen: ?number}} Member see punch/dashboard/_machines.py */

/** @typedef {{id: string, state: string, uses: number, left: number, seconds: number, name: ?string, mine: boolean, short: boolean, used_by: string[]}} Invite */

/** @typedef {{namespace: ?string, may: boolean, why_not: ?string, served: boolean, members: Member[], more_members: number, invites: Invite[]}} Members */

/** @typedef {{id: string, code: string, short: boolean, uses: number, ends: number, at: ?string, qr: {size: number, path: string}}} MadeInvite */

/**
 * @typedef {object} Topology see punch/dashboard/_network.py
 * @property {{id: string, name: ?string, listens: boolean, models: number}} here
 * @property {{id: string, name: ?string, path: ?string, rtt: ?number, models: number, lanes: number, lends: boolean, reachable: ?boolean, leaves: boolean}[]} peers
 * @property {{id: string, why: string}[]} away
 * @property {{id: string, listens: boolean}[]} workers
 * @property {{name: string, works: boolean, listeners: number, trouble: ?string, alike: number}[]} meeting
 * @property {{id: string, model: ?string, state: string, workers: string[]}[]} splits
 * @property {number} more
 */

/** @typedef {{kind: ?string, peer: ?string, seconds: ?number, why_not: ?string}} SizeCell */

/** @typedef {{model: string, size: ?number, taken: ?string, why: ?string, cells: Object<string, SizeCell>}} SizeRow */

/** @typedef {{url: string, program: ?string, how: string, state: string, reason: ?string, models: string[], more_models: number, lane: ?string, seconds: number}} Adopted */

/** @typedef {{measured: ?number, samples: number, believed: boolean, claimed: ?number}} Rate */

/** @typedef {{breaker: string, failures: number, cools: ?number}} BreakerState */

/**
 * @typedef {object} Model
 * @property {string} name
 * @property {?string} digest
 * @property {?number} context
 * @property {?number} parameters
 * @property {?string} quantization
 * @property {?number} size
 * @property {string[]} features
 * @property {boolean} continues
 * @property {string} lane the id of its lane
 * @property {number} loads seconds until it can answer, 0 if it is loaded
 * @property {BreakerState} state
 * @property {Rate} prefill
 * @property {Rate} decode
 */

/** @typedef {{name: string, memory: number, memory_free: ?number, usage: ?number}} Gpu */

/** @typedef {{slots: number, busy: number, queued: number, queue_limit: number, draining: boolean}} Load */

/** @typedef {{id: string, backend: string, simulated: boolean, state: string, reason: ?string, load: Load}} Lane */

/**
 * @typedef {object} Peer
 * @property {string} id
 * @property {?string} name what it says that its machine is called
 * @property {string} backend
 * @property {boolean} simulated
 * @property {?number} rtt
 * @property {?number} silent
 * @property {?string} unreachable
 * @property {BreakerState} state
 * @property {?number} resting
 * @property {number} ours
 * @property {number} faults
 * @property {number} reputation
 * @property {Load} load of all lanes together
 * @property {Lane[]} lanes one for each backend
 * @property {number} more_lanes
 * @property {{threads: ?number, cpus: ?number, cpu_usage: ?number, memory: ?number, memory_free: ?number}} machine
 * @property {Gpu[]} gpus
 * @property {Model[]} models
 * @property {number} more_models
 */

/** @typedef {{peer: string, tokens: number, characters: number, seconds: number, reason: string}} Segment */

/**
 * @typedef {object} RequestRow
 * @property {number} n serial number; an id may come twice
 * @property {string} id
 * @property {string} endpoint
 * @property {?string} model as asked for
 * @property {boolean} stream
 * @property {?string} key
 * @property {number} began
 * @property {?number} seconds null while it is under way
 * @property {?number} first
 * @property {?number} status
 * @property {?string} error
 * @property {?string} peer
 * @property {?{kind: string, backend: string, model: ?string, digest: ?string}} made_by
 * @property {?{state: string, ahead: ?number, seconds: ?number}} waits
 * @property {number} decisions
 * @property {number} failed
 * @property {number} continued how often another peer went on
 * @property {Segment[]} segments
 * @property {?number} prompt_tokens
 * @property {?number} cached_tokens
 * @property {number} tokens
 * @property {boolean} counted the backend counted the tokens; otherwise they are parts of text
 */

/** @typedef {{t: number, requests: number, failed: number, tokens: number, firsts: number, p50: ?number, p95: ?number, ids: string[], more: number}} Point */

/** @typedef {{day: string, requests: number, errors: number, prompt_tokens: number, completion_tokens: number}} Day */

/**
 * @typedef {object} KeyRow of /api/dashboard/keys; see punch/dashboard/_key_rows.py
 * @property {string} id
 * @property {string} name
 * @property {string} state active, expired or revoked
 * @property {string[]} models none for all
 * @property {number} more_models
 * @property {number} created
 * @property {?number} expires
 * @property {?number} revoked
 * @property {{requests: ?number, tokens: ?number, concurrency: ?number}} limits
 * @property {{requests: ?number, tokens: ?number, running: number}} left
 * @property {Day[]} days oldest first, those in which it was used
 */

/**
 * @typedef {object} SplitPart what one device holds; see punch/dashboard/_splits.py
 * @property {?string} worker null for the head itself
 * @property {string} device
 * @property {number} first its first layer
 * @property {number} layers how many
 * @property {number} bytes
 * @property {number} token_bytes over the link to it, for each token
 * @property {?string} state lent, holds or lost
 */

/**
 * @typedef {object} Split
 * @property {string} id
 * @property {?string} model
 * @property {string} state planning, loading, ready, lost, failed or over
 * @property {?number} progress 0 to 1 while it loads
 * @property {?number} seconds that its last start took
 * @property {number} starts
 * @property {?number} decode tokens a second, predicted
 * @property {?number} first seconds to the first token, predicted
 * @property {boolean} output_on_head
 * @property {SplitPart[]} parts in the order in which a token passes them
 * @property {number} more_parts
 * @property {string[]} left_out workers that hold nothing, with the reason
 */

/** @typedef {{n: number, time: number, kind: string, id?: string, peer?: ?string, [more: string]: any}} Happening */

/** @typedef {{time: number, level: string, logger: string, event: string, fields: Object<string, string>}} LogLine */

/**
 * @typedef {object} Frame
 * @property {number} time
 * @property {object} [about]
 * @property {string[]} [members]
 * @property {Peer[]} [peers]
 * @property {RequestRow[]} [requests]
 * @property {Happening[]} [events]
 * @property {Split[]} [splits] all of them, if any has changed
 * @property {LogLine[]} [logs]
 * @property {Point[]} [points]
 * @property {number[]} live
 * @property {{requests: number, failed: number, tokens: number, continued: number, under_way: number}} totals
 * @property {string} [trouble]
 * @property {{id: string, why: string}[]} [unreachable]
 */

export {};
