// Package image holds imgwrap's use cases: looking into an image, planning
// what wrapping it would change, and doing it.
//
// Everything is decided before anything is written. [Wrapper.Plan] inspects
// the image and yields a [Plan] with a reason for every decision and with the
// exact bytes of the new config and manifest; [Wrapper.Wrap] carries that plan
// out. A dry run is a plan that nobody carries out.
package image
