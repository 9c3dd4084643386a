/*
 * Alignment (run_align.h): counting is enough, since a channel delivers each barrier once and says nothing while it is held.
 */
#include "cli/run_align.h"

#include "shared/log.h"

void aligner_init(struct aligner *aligner, uint32_t channels)
{
	*aligner = (struct aligner){.open = channels};
}

/* Whether a barrier is here and every channel that could still deliver it has. */
static bool is_aligned(const struct aligner *aligner)
{
	return aligner->coming != 0 && aligner->arrived == aligner->open;
}

bool aligner_barrier(struct aligner *aligner, uint64_t barrier)
{
	CHECK(barrier > aligner->passed && (aligner->coming == 0 || aligner->coming == barrier));
	CHECK(aligner->arrived < aligner->open);
	aligner->coming = barrier;
	aligner->arrived++;
	return is_aligned(aligner);
}

bool aligner_end(struct aligner *aligner)
{
	CHECK(aligner->arrived < aligner->open);
	aligner->open--;
	return is_aligned(aligner);
}

void aligner_pass(struct aligner *aligner, uint64_t barrier)
{
	CHECK(barrier > aligner->passed);
	aligner->passed = barrier;
	aligner->coming = 0;
	aligner->arrived = 0;
}
