/* What the step kinds share with their table, and nobody else includes. */
#ifndef WORKER_STEPS_KINDS_H
#define WORKER_STEPS_KINDS_H

#include "worker/jq_program.h"
#include "worker/step.h"

/* One per file of this folder. */
extern const struct step_kind_ops passthrough_ops;
extern const struct step_kind_ops map_ops, filter_ops, flat_map_ops;
extern const struct step_kind_ops parse_json_ops, serialize_json_ops;
extern const struct step_kind_ops select_ops, rename_ops, set_ops;
extern const struct step_kind_ops enrich_ops;
extern const struct step_kind_ops batch_ops;
extern const struct step_kind_ops aggregate_ops;
extern const struct step_kind_ops dedup_ops;
extern const struct step_kind_ops key_by_ops;
extern const struct step_kind_ops route_ops, broadcast_ops;

/* Compiles a program of a step; NULL and a message that names the option (and the field, if any) when it does not compile. */
struct jq_program *step_program(const struct option *option, const char *field, const char *text,
				struct failure *failure);

/* A record's payload as a value of a form; false and `failure` when it is none. */
bool step_need_value(struct record *record, enum payload_form form, struct run *run, struct failure *failure);

/* The same, where only a JSON object will do. */
bool step_need_object(struct record *record, struct run *run, struct failure *failure);

/* A program failed on a record: its words, and the payload as it came. Returns false. */
bool step_program_failed(const struct jq_program *program, const struct record *record, struct failure *failure);

/* A value that a program yielded of a record as bytes: a string's own, any other value's JSON; takes over `value`. Null is a failure,
 * which calls the value `what`. */
bool step_key_bytes(const struct record *record, jv value, const char *what, struct run *run, struct view *bytes,
		    struct failure *failure);

/* A call of the state API did not do what it had to, which was `what` ("remember the key"). Returns false. */
bool step_state_failed(enum state_result result, uint32_t origin, const char *what, struct failure *failure);

/* Memory is out, or the run is full. Returns false. */
bool step_no_room(const struct record *record, struct failure *failure);

#endif
