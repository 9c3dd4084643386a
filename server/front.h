/*
 * The inside of the front: what the front_*.c files share. Nobody else includes this.
 *
 *   front.c           the role: gRPC server, loop, doorbell thread, orderly stop
 *   front_accept.c    listening sockets, and the thread that accepts
 *   front_slots.c     slots and channels: frames in and out, a worker's death, giving memory back
 *   front_unary.c     the four unary calls and the refusal of unknown methods
 *   front_sessions.c  the Session stream
 *   front_open.c      an Open: checks, fencing, placement onto a slot
 *   front_health.c    grpc.health.v1
 *   front_reflection.c  grpc.reflection, for tools
 *
 * One thread runs all of it (the doorbell's only posts an event, the one that accepts has its own memory). Everything that gRPC completes is a struct tag;
 * everything a worker does shows as a bit in its slot's ready_for_front.
 */
#ifndef SERVER_FRONT_H
#define SERVER_FRONT_H

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/slice.h>
#include <grpc/status.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/roles.h"
#include "shared/ring.h"
#include "shared/view.h"

struct front;
struct session;
struct unary_call;

/* What the completion queue hands back: who is called, with what. */
struct tag {
	void (*done)(void *owner, bool ok);
	void *owner;
};

/* ---- Connections (front_accept.c) ---- */

struct doors;

/* Listens on all addresses of the configuration. NULL; or why it cannot on *address, good until the next call of the C library. */
const char *doors_open(struct front *front, const char **address);

/* Accepts from now on, in a thread of its own. */
void doors_start(struct front *front);

/* Accepts nobody any more. Who is connected stays. */
void doors_close(struct front *front);

/* ---- Slots and channels (front_slots.c) ---- */

enum { LENT_MAX = 128 }; /* answers of one channel that gRPC may hold at a time */

/* One answer's bytes: given back to the ring in order, when gRPC (any thread) is done with them. */
struct lent {
	struct channel_end *end;
	uint64_t cursor; /* what ring_release is called with */
	_Atomic uint32_t done;
};

/* The front's end of one channel. */
struct channel_end {
	struct slot_end *slot;
	uint32_t channel, epoch;
	enum channel_state state;
	struct ring_producer requests;
	struct ring_consumer answers;
	bool waits_for_room;     /* a request did not fit */
	struct session *session; /* NULL: the unary channel, or the session has gone */
	uint64_t fill;           /* bytes in the request ring when last looked */
	uint64_t lent_first, lent_next;
	struct lent lent[LENT_MAX];
};

/* The front's end of one slot. */
struct slot_end {
	struct front *front;
	uint32_t index;
	struct slot_memory *memory;
	uint32_t generation; /* of the memory that `up` speaks of */
	uint32_t owner;      /* the number of the process that owns it, as far as known */
	uint32_t wanted;     /* leaving: the least number of an owner that will do */
	bool up;             /* an owner is, or soon will be, there for this front */
	bool lost;           /* what was with an older generation has failed; its channels are not yet free */
	bool damaged;        /* its rings lied; down until its memory is fresh */
	bool leaving;        /* another allocation wants a fresh worker; down until it comes */
	char *allocation;    /* the allocation it serves, or last served */
	bool used;           /* a session of `allocation` has run on the current owner */
	uint32_t sessions;   /* channels of sessions not yet free */
	uint32_t unary_in_flight;
	uint64_t memory_bytes;                       /* of rings allocated now */
	uint64_t request_fill;                       /* sum over its channels */
	uint64_t kicked;                             /* bits set since the doorbell was last looked at */
	struct channel_end *ends[SLOT_CHANNELS_MAX]; /* NULL: free */
	struct unary_call *waiting, **waiting_tail;  /* unary calls that found no room or no worker */
};

enum send_result { SEND_OK, SEND_FULL };

/* Takes the state of all slots from the control memory: workers lost, workers ready. */
void slots_refresh(struct front *front);

/* Looks at every channel that its worker marked ready; whether there was any. */
bool slots_serve(struct front *front);

/* Rings the workers that sleep and were given something since the last call. */
void slots_kick(struct front *front);

/* A number for a channel that no other has had, of this front or those before it. */
uint32_t front_epoch(struct front *front);

/* Opens a free session channel; NULL with *why when there is none, or no memory. */
struct channel_end *slot_open_channel(struct slot_end *slot, struct session *session, uint32_t segment,
				      const char **why);

/* The slot's unary channel, opened at first use; NULL when there is no memory for it. */
struct channel_end *slot_unary_channel(struct slot_end *slot);

/* Starts to close a channel: its worker drops the session, the memory comes back later. */
void channel_end_close(struct channel_end *end);

/* Puts a frame into the request ring. SEND_FULL: the caller keeps it and is called again when there is room. */
enum send_result channel_end_send(struct channel_end *end, struct frame header, grpc_byte_buffer *payload);

/* A byte buffer of an answer's payload, lent out of the ring where that pays; consumes the frame peeked. */
grpc_byte_buffer *channel_end_take(struct channel_end *end, const struct frame *header, const uint8_t *payload);

/* Consumes the frame peeked without handing its payload on. */
void channel_end_skip(struct channel_end *end, const struct frame *header);

/* The status that a worker gave; UNKNOWN for a number that is none. */
grpc_status_code status_code_of(const struct frame_status *status);

/* The slot's worker wrote what cannot be true: asks for its end. */
void slot_damaged(struct slot_end *slot, uint32_t channel);

/* ---- Unary calls (front_unary.c) ---- */

void unary_init(struct front *front);                     /* before the server starts */
void unary_start(struct front *front);                    /* after */
void unary_serve(struct channel_end *end);                /* answers of the unary channel */
void unary_retry(struct slot_end *slot);                  /* room or a worker came */
void unary_slot_lost(struct slot_end *slot);              /* fails what was with the worker */
void unary_give_up(struct front *front, uint64_t now_ns); /* fails what waited too long for a worker */
bool unary_is_quiet(const struct front *front);           /* no call is inside */
void unary_end_late(struct front *front);                 /* fails what is past its caller's deadline */

/* Ends a call with a status and text; used by all services. The tag fires when gRPC is done with it. */
void call_finish(grpc_call *call, struct tag *tag, int *cancelled, grpc_byte_buffer *message, grpc_status_code code,
		 const char *text);

/* ---- Sessions (front_sessions.c, front_open.c) ---- */

enum session_state {
	SESSION_OPENING, /* the first message is awaited, or a slot for it */
	SESSION_RUNNING, /* has a channel */
	SESSION_ENDING,  /* its status is decided; waits for the last write, then for gRPC to let go */
};

enum { DIRECT_MAX = 64 };

struct session {
	struct front *front;
	struct session *next, *previous; /* all sessions */
	enum session_state state;
	grpc_call *call;
	struct tag close_tag, read_tag, write_tag, status_tag, start_tag;
	unsigned outstanding; /* tags that will still fire */
	bool reading, writing, half_closed, status_sent;
	int cancelled;
	grpc_metadata_array metadata;
	gpr_timespec deadline;
	grpc_byte_buffer *inbound; /* being read, or read and parked */
	bool parked;               /* inbound waits for room or a slot */
	uint64_t received_ns;      /* of inbound */
	grpc_byte_buffer *outbound;
	struct channel_end *end;
	struct session_info *info;
	uint32_t segment, subtask, epoch;
	uint64_t seq;              /* messages handed to the worker */
	uint64_t answered;         /* of these, answered in full */
	uint64_t wait_until_ns;    /* while OPENING: when waiting for a slot ends; 0: does not wait */
	struct open_request *open; /* what Open said */
	grpc_status_code status;
	char status_text[512];
	grpc_byte_buffer *direct[DIRECT_MAX]; /* --direct: messages to write back */
	unsigned direct_first, direct_count;
};

void sessions_init(struct front *front);       /* before the server starts */
void sessions_start(struct front *front);      /* after */
void session_serve(struct session *session);   /* answers in its ring, or room */
void session_forward(struct session *session); /* hands the message at hand to the worker, or parks it */
void session_slot_lost(struct session *session);
void session_end(struct session *session, grpc_status_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void sessions_direct(struct front *front); /* --direct: writes back what was read in this turn */
void sessions_drain(struct front *front);  /* no more reading; end when all is answered */

/* What an Open said, checked and copied. */
struct open_request {
	char *job, *attempt, *allocation, *jvm;
	int64_t token;
	uint32_t segment, subtask, parallelism;
	bool restores; /* a checkpoint: RestoreEnd has to come */
};

void open_request_free(struct open_request *open);

/* Reads and checks an Open message; NULL after it has ended the session in words. */
struct open_request *open_check(struct session *session, struct view message);

/* Ends what a newer Open replaces, or the session itself when it is the older one (then false). */
bool open_fence(struct session *session);

/* Finds a slot and a channel: true when the session has one, or has been ended; false: it has to wait. */
bool open_place(struct session *session);

/* Tries all waiting Opens again; ends those whose time is up. */
void opens_retry(struct front *front, uint64_t now_ns);

/* Takes over what the front before this one left: client processes, and who was served by which slot. */
void open_inherit(struct front *front);

/* Something changed that a waiting Open may want. */
void opens_wake(struct front *front);

/* ---- Health (front_health.c) ---- */

void health_init(struct front *front);    /* before the server starts */
void health_start(struct front *front);   /* after */
void health_drain(struct front *front);   /* lets those who watch go */
void health_changed(struct front *front); /* tells those who watch, if the answer changed */

/* ---- Reflection (front_reflection.c) ---- */

void reflection_init(struct front *front);          /* before the server starts */
void reflection_start_serving(struct front *front); /* after */

/* ---- The role (front.c) ---- */

enum { METHODS_UNARY = 4 };

struct front {
	struct sidecar *sidecar;
	const struct config *config;
	const struct descriptor *descriptor;
	struct control_memory *control;
	struct front_page *page;
	uint32_t generation;
	grpc_server *server;
	grpc_completion_queue *queue;
	struct doors *doors;
	bool draining, cut; /* the latter: those who stay connected for nothing have been cut off */
	uint64_t quiet_ns;  /* while draining: since when there has been nothing to finish; 0: there is something */
	bool slots_changed; /* slots_refresh is due */
	uint64_t now_ns;    /* of this turn of the loop */
	uint64_t looked_ns; /* when it last looked for those who have waited too long */

	struct slot_end slots[SLOTS_MAX];
	uint32_t slot_count;
	uint64_t in_flight;  /* messages and calls with workers */
	uint64_t turn_bytes; /* of requests that this turn of the loop has put into rings */

	struct session *sessions, *sessions_last; /* in the order of their arrival */
	uint32_t sessions_waiting;                /* Opens that wait for a slot */
	bool opens_woken;
	char *jvm;                        /* the client process whose sessions are served */
	char *jvms_retired[JVMS_RETIRED]; /* earlier ones */
	unsigned jvm_next_retired;
	bool segment_has_sessions[DESCRIPTOR_SEGMENTS_MAX];

	struct unary *unary;
	struct health *health;
};

/* A byte buffer's bytes in one piece: of its only slice where it has one, else a copy. Release with flat_release. */
struct flat {
	grpc_slice slice;
	struct view view;
};
bool flat_read(struct flat *flat, grpc_byte_buffer *buffer);
void flat_release(struct flat *flat);

/* A byte buffer of one copied piece. */
grpc_byte_buffer *buffer_of(const void *data, size_t size);

#endif
