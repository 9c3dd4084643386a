/*
 * The workspace: shared scratch, counters and progress words of one worker process.
 */
#include "worker/workspace.h"

#include "shared/log.h"
#include "worker/failure.h"

/* Fills a workspace for a slot's worker. */
void workspace_init(struct workspace *workspace, const struct sidecar *sidecar, uint32_t slot)
{
	*workspace = (struct workspace){
	    .config = &sidecar->config,
	    .descriptor = sidecar->descriptor,
	    .control = &sidecar->control,
	    .page = control_worker(&sidecar->control, slot),
	    .life = &control_worker(&sidecar->control, slot)->lives[0],
	    .ready = &sidecar->slots[slot].channels->ready_for_worker,
	    .slot = slot,
	    .scratch = scratch_create(),
	};
	CHECK(workspace->scratch != NULL);
	run_init(&workspace->run, workspace->scratch);
	workspace->now_ns = clock_ns();
}

/* Frees what the workspace owns. */
void workspace_deinit(struct workspace *workspace)
{
	run_deinit(&workspace->run);
	scratch_destroy(workspace->scratch);
	wire_batch_free(&workspace->batch);
}

/* Empties the arrays for the next unit. */
void workspace_clear(struct workspace *workspace)
{
	run_clear(&workspace->run);
	scratch_reset(workspace->scratch);
	wire_batch_clear(&workspace->batch);
}

/* Whether the channel at hand should let others have their turn. A large batch that nobody else waits behind goes on for
 * longer: to leave it costs a message, since what is written so far has to be sent by itself. */
bool workspace_turn_is_over(struct workspace *workspace)
{
	workspace->now_ns = clock_ns();
	if (workspace->now_ns < workspace->deadline_ns)
		return false;
	return workspace->now_ns >= workspace->limit_ns || workspace->others != 0 ||
	       atomic_load_explicit((_Atomic uint64_t *)workspace->ready, memory_order_relaxed) != 0;
}

/* Says that the unit at hand is in trouble, and which step was at work. */
bool workspace_trouble(struct workspace *workspace, enum trouble trouble)
{
	workspace->unit.trouble = trouble;
	workspace->unit.step = workspace->step;
	return false;
}

/* Notes that the arena is in trouble. */
void workspace_arena_trouble(struct workspace *workspace)
{
	static const enum trouble troubles[] = {
	    [ARENA_FULL] = TROUBLE_STATE, [ARENA_LOG_FULL] = TROUBLE_LOG, [ARENA_BROKEN] = TROUBLE_DAMAGE};

	if (workspace->unit.trouble == TROUBLE_NONE)
		workspace_trouble(workspace, troubles[workspace->arena.trouble]);
}

/* Names the step at work; called by chains. */
static void step_began(void *context, uint32_t step)
{
	struct workspace *workspace = context;

	workspace->step = step;
	atomic_store_explicit(&workspace->life->progress.step, step, memory_order_relaxed);
}

/* Opens the chain of a segment, wired to counters and progress words. */
struct chain *workspace_chain(struct workspace *workspace, const struct segment *segment, struct state_store *store,
			      struct failure *failure)
{
	struct worker_step_counters *counters = NULL;
	struct chain *chain;

	if (segment->step_count > 0)
		counters = control_worker_step(workspace->control, workspace->slot, segment->steps[0].index);
	chain = chain_create(segment, store, counters, failure);
	if (chain != NULL)
		chain_on_progress(chain, step_began, workspace);
	return chain;
}

/* The counters of a segment. */
struct worker_segment_counters *workspace_segment_counters(const struct workspace *workspace, uint32_t segment)
{
	return control_worker_segment(workspace->control, workspace->slot, segment);
}

/* Says what is at hand; `since_ns` comes last, because it tells readers that the rest holds. */
void progress_begin(struct workspace *workspace, const struct frame *frame, uint32_t channel)
{
	struct progress *progress = &workspace->life->progress;

	workspace->step = UINT32_MAX;
	atomic_store_explicit(&progress->seq, frame->seq, memory_order_relaxed);
	atomic_store_explicit(&progress->segment, frame->segment, memory_order_relaxed);
	atomic_store_explicit(&progress->channel, channel, memory_order_relaxed);
	atomic_store_explicit(&progress->epoch, frame->epoch, memory_order_relaxed);
	atomic_store_explicit(&progress->step, UINT32_MAX, memory_order_relaxed);
	atomic_store_explicit(&progress->record, 0, memory_order_relaxed);
	atomic_store_explicit(&progress->careful, workspace->careful, memory_order_relaxed);
	atomic_store_explicit(&progress->shown, 0, memory_order_relaxed);
	atomic_store_explicit(&progress->since_ns, workspace->now_ns, memory_order_release);
}

/* Says which record of the message the unit at hand begins with. */
void progress_record(const struct workspace *workspace, uint32_t record)
{
	atomic_store_explicit(&workspace->life->progress.record, record, memory_order_relaxed);
}

/* Shows the beginning of an input. */
static void show_input(struct progress *progress, const struct chain_input *input)
{
	_Static_assert((int)INPUT_TEXT_MAX >= (int)EXCERPT_SIZE, "an excerpt fits");

	atomic_store_explicit(&progress->shown, 0, memory_order_relaxed);
	/* Release: who dies among the next stores has not shown anything. */
	atomic_thread_fence(memory_order_release);
	excerpt(input->key, progress->key);
	excerpt(input->bytes, progress->input);
	atomic_store_explicit(&progress->shown, 1, memory_order_release);
}

/* Says which input a step gets now. The step comes last: without one the rest is not looked at. */
void progress_input(const struct workspace *workspace, const struct chain_input *input)
{
	struct progress *progress = &workspace->life->progress;

	show_input(progress, input);
	atomic_store_explicit(&progress->digest, input->digest, memory_order_relaxed);
	atomic_store_explicit(&progress->ordinal, input->ordinal, memory_order_relaxed);
	atomic_store_explicit(&progress->step, input->step, memory_order_release);
}

/* Says that no input is at work. */
void progress_no_input(const struct workspace *workspace)
{
	atomic_store_explicit(&workspace->life->progress.shown, 0, memory_order_relaxed);
	atomic_store_explicit(&workspace->life->progress.step, UINT32_MAX, memory_order_release);
}

/* Notes work that is committed: messages that are done with, if any, and when this life's first was. */
void progress_done(const struct workspace *workspace, uint32_t messages)
{
	struct life *life = workspace->life;

	if (counter_read(&life->first_commit_ns) == 0)
		gauge_set(&life->first_commit_ns, clock_ns());
	counter_add(&life->frames_done, messages);
}

/* Says that nothing is at hand. */
void progress_end(const struct workspace *workspace)
{
	atomic_store_explicit(&workspace->life->progress.since_ns, 0, memory_order_release);
}
