// A gRPC server and client, for the tests: grpc-go, with messages of plain bytes.
//
//	grpc server ADDRESS          serves in plain text until it is ended; says where once it listens
//	grpc client ADDRESS CALL     makes one call, in plain text, and says how it went; CALL is one of
//	                             unary stream bidi large deadline cancel, or hold: a line in, a line back
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
)

const (
	// A message of this size is far larger than HTTP/2's windows.
	large = 16 << 20
	most  = large + 1024
	// How many messages a stream has.
	many = 100
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	encoding.RegisterCodec(plain{})
	switch {
	case len(args) == 2 && args[0] == "server":
		return serve(args[1])
	case len(args) == 3 && args[0] == "client":
		return call(args[1], args[2])
	}
	return fmt.Errorf("usage: grpc server ADDRESS | grpc client ADDRESS CALL")
}

// plain is a codec for messages that are bytes.
type plain struct{}

func (plain) Name() string { return "plain" }

func (plain) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (plain) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	server := grpc.NewServer(grpc.MaxRecvMsgSize(most), grpc.MaxSendMsgSize(most), grpc.UnknownServiceHandler(handle))
	return server.Serve(listener)
}

// Every method reads messages; what it answers is in its name.
func handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	switch method {
	case "/test.Echo/Unary", "/test.Echo/Bidi":
		for {
			var message []byte
			if err := stream.RecvMsg(&message); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
		}
	case "/test.Echo/Stream":
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		for range many {
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
		}
		return nil
	case "/test.Echo/Hang":
		<-stream.Context().Done()
		fmt.Println("given up:", status.FromContextError(stream.Context().Err()).Code())
		return stream.Context().Err()
	}
	return status.Error(codes.Unimplemented, method)
}

func call(address, name string) error {
	size := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(most), grpc.MaxCallSendMsgSize(most), grpc.CallContentSubtype("plain"))
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), size)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	switch name {
	case "unary":
		err = unary(ctx, connection, []byte("a word"))
	case "large":
		message := make([]byte, large)
		for i := range message {
			message[i] = byte(i * 31 >> 3)
		}
		err = unary(ctx, connection, message)
	case "stream":
		err = messages(ctx, connection)
	case "bidi":
		err = back(ctx, connection)
	case "deadline":
		err = hang(ctx, connection, codes.DeadlineExceeded)
	case "cancel":
		err = hang(ctx, connection, codes.Canceled)
	case "hold":
		err = hold(connection)
	default:
		err = fmt.Errorf("no call is named %q", name)
	}
	if err == nil {
		fmt.Println("ok", name)
	}
	return err
}

func unary(ctx context.Context, connection *grpc.ClientConn, message []byte) error {
	var answer []byte
	if err := connection.Invoke(ctx, "/test.Echo/Unary", &message, &answer); err != nil {
		return err
	}
	return same(message, answer)
}

func open(ctx context.Context, connection *grpc.ClientConn, method string) (grpc.ClientStream, error) {
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	return connection.NewStream(ctx, both, "/test.Echo/"+method)
}

// One message up, many down.
func messages(ctx context.Context, connection *grpc.ClientConn) error {
	stream, err := open(ctx, connection, "Stream")
	if err != nil {
		return err
	}
	message := []byte("a word")
	if err := stream.SendMsg(&message); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for count := 0; ; count++ {
		var answer []byte
		if err := stream.RecvMsg(&answer); err == io.EOF && count == many {
			return nil
		} else if err != nil {
			return fmt.Errorf("after %d messages: %w", count, err)
		}
		if err := same(message, answer); err != nil {
			return err
		}
	}
}

// Each message is answered before the next one goes up, and the end of one side is that of the other.
func back(ctx context.Context, connection *grpc.ClientConn) error {
	stream, err := open(ctx, connection, "Bidi")
	if err != nil {
		return err
	}
	for count := range many {
		message := fmt.Appendf(nil, "word %d", count)
		if err := exchange(stream, message); err != nil {
			return err
		}
	}
	return end(stream)
}

func exchange(stream grpc.ClientStream, message []byte) error {
	var answer []byte
	if err := stream.SendMsg(&message); err != nil {
		return err
	}
	if err := stream.RecvMsg(&answer); err != nil {
		return err
	}
	return same(message, answer)
}

func end(stream grpc.ClientStream) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var nothing []byte
	if err := stream.RecvMsg(&nothing); err != io.EOF {
		return fmt.Errorf("after the end came %v", err)
	}
	return nil
}

// A call that nobody answers: it ends by its deadline, or when it is given up.
func hang(ctx context.Context, connection *grpc.ClientConn, code codes.Code) error {
	const patience = 300 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if code == codes.DeadlineExceeded {
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	} else {
		time.AfterFunc(patience, cancel)
	}
	message := []byte("a word")
	err := connection.Invoke(ctx, "/test.Echo/Hang", &message, new([]byte))
	if status.Code(err) != code {
		return fmt.Errorf("%v came, and not %v", err, code)
	}
	// The connection has not suffered.
	return unary(context.Background(), connection, message)
}

// One stream for as long as there are lines on stdin: each is sent, and printed when it has come back.
func hold(connection *grpc.ClientConn) error {
	stream, err := open(context.Background(), connection, "Bidi")
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := exchange(stream, lines.Bytes()); err != nil {
			return err
		}
		fmt.Println(lines.Text())
	}
	return end(stream)
}

func same(sent, came []byte) error {
	if !bytes.Equal(sent, came) {
		return fmt.Errorf("%d bytes came back for %d, or others", len(came), len(sent))
	}
	return nil
}
