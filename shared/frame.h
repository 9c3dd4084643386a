/*
 * The frame: what travels through a ring between front and worker.
 *
 * A frame is a fixed header and a payload, contiguous, aligned to FRAME_ALIGN; none exceeds a quarter of its ring.
 * The payload is a protobuf message exactly as it came from, or goes to, the client; neither side of the ring copies
 * it into another form. A header is copied out of the ring before it is checked, and only the copy is believed.
 */
#ifndef SHARED_FRAME_H
#define SHARED_FRAME_H

#include <stdint.h>

enum { FRAME_ALIGN = 32 };

/* Kinds, by direction. FRAME(name, what its payload is) */
#define FRAME_KINDS(FRAME)                                                                                             \
	FRAME(PAD, "nothing: skips the end of a ring")                                                                 \
	/* front to worker */                                                                                          \
	FRAME(OPEN, "the ToWorker message with Open; the first frame of a session")                                    \
	FRAME(MESSAGE, "a ToWorker message of an open session")                                                        \
	FRAME(HALF_CLOSE, "nothing: no more will come of a session that restores, or has")                             \
	FRAME(PROCESS_MESSAGE, "a ProcessMessageRequest")                                                              \
	FRAME(PROCESS_WATERMARK, "a ProcessWatermarkRequest")                                                          \
	FRAME(ADD_TO_WINDOW, "an AddToWindowRequest")                                                                  \
	FRAME(TRIGGER_WINDOW, "a TriggerWindowRequest")                                                                \
	/* worker to front */                                                                                          \
	FRAME(ANSWER, "a FromWorker message of a session")                                                             \
	FRAME(END, "struct frame_status and text: how the stream ends; the last frame of a session")                   \
	FRAME(REPLY, "the response message of a unary call")                                                           \
	FRAME(REFUSAL, "struct frame_status and text: how a unary call failed")

enum frame_kind {
#define FRAME(name, payload) FRAME_##name,
	FRAME_KINDS(FRAME)
#undef FRAME
	    FRAME_KIND_COUNT
};

/* The fixed header of every frame. */
struct frame {
	uint32_t length;      /* bytes of header and payload, without the padding up to FRAME_ALIGN */
	uint16_t kind;        /* enum frame_kind */
	uint16_t flags;       /* FRAME_LAST or 0 */
	uint32_t epoch;       /* of the session; frames of another epoch than the channel's are dropped */
	uint32_t segment;     /* the segment the frame belongs to */
	uint64_t seq;         /* session: ToWorker.seq that it carries or answers; unary: the call's number */
	uint64_t received_ns; /* CLOCK_MONOTONIC when the front read the request; answers carry their request's */
};

_Static_assert(sizeof(struct frame) == FRAME_ALIGN, "the frame header is one alignment unit");

/* Set on the last ANSWER to a seq, so that the front can measure without reading the payload. */
enum { FRAME_LAST = 1 };

/* Head of the payload of END and REFUSAL; UTF-8 text without NUL follows. */
struct frame_status {
	uint32_t code; /* a gRPC status code */
};

/* Bytes that a frame of so many header-and-payload bytes takes up in a ring. */
static inline uint64_t frame_span(uint64_t length)
{
	return (length + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1);
}

/* The name of a kind for logs; "?" for a number that is none. */
const char *frame_kind_name(unsigned kind);

#endif
