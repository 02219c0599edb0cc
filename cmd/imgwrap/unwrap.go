package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/imgwrap/imgwrap/image"
)

func (a *app) unwrapCommand() *cobra.Command {
	var out output
	var to image.Destination
	cmd := &cobra.Command{
		Use:   "unwrap IMAGE",
		Short: "Give back the image that a wrapped one was made from, byte for byte",
		Long: `unwrap gives back the image that a wrapped one was made from, byte for byte: it
has the digest that it had. The wrapped image holds all that this takes, so it
also works after it was copied elsewhere. Only attestations that wrapping took
out of an index are read from where the source was. Without --tag or --in-place
no tag is moved: the image is in the repository, to be named by its digest.`,
		Args: oneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.open(); err != nil {
				return err
			}
			defer out.close()
			w, done, err := a.wrapper()
			if err != nil {
				return err
			}
			r, err := w.Unwrap(cmd.Context(), args[0], to)
			done()
			if err != nil {
				return err
			}
			for _, n := range r.Notes {
				a.log.Info(n)
			}
			if r.Push.UpToDate {
				a.log.Infof("%s is already there", r.Name())
			} else {
				a.log.Infof("pushed %s: %s", r.Image, traffic(r.Push))
			}
			return out.deliver(a.out, result{
				json: r,
				text: func(w io.Writer) error {
					_, err := fmt.Fprintln(w, r.Name())
					return err
				},
				env: imageVariables(r.Image, r.Tag, r.Digest),
			})
		},
	}
	out.register(cmd.Flags(), formEnv)
	cmd.Flags().StringVarP(&to.Tag, "tag", "t", "", "tag to move to the image: a tag, a whole reference, or a template")
	cmd.Flags().BoolVar(&to.InPlace, "in-place", false, "move the wrapped image's own tag back")
	return cmd
}
