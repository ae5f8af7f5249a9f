/* Sending: one copy from the log's segment into a slot or a message, and libzmq takes it from there. */
#ifndef FABRIC_WIRE_OUTLET_H
#define FABRIC_WIRE_OUTLET_H

#include "frame_slots.h"
#include "packet_layout.h"
#include "stamp_clock.h"
#include "zmq_calls.h"

/* A message of `bytes` to be written, in a slot where it fits and one is free. Null if there is no memory. */
static inline void *wire_new_message(zmq_message *message, frame_slots *slots, size_t bytes) {
    if (slots && bytes <= sizeof ((frame_slot *)0)->packet) {
        frame_slot *slot = frame_slots_take(slots);
        if (slot) {
            if (zmq.msg_init_data(message, slot->packet, bytes, frame_slot_give_back, slot) == 0) return slot->packet;
            frame_slot_give_back(slot->packet, slot);
        }
    }
    return zmq.msg_init_size(message, bytes) == 0 ? zmq.msg_data(message) : NULL;
}

/* One packet. A header whose sent_ns is 0 is stamped here. Returns 0 or -errno. */
static inline int wire_send_packet(void *socket, frame_slots *slots, packet_header *header, const void *records) {
    zmq_message message;
    void *packet = wire_new_message(&message, slots, PACKET_HEADER_BYTES + (size_t)header->size * header->count);
    if (!packet) return -zmq.last_errno();
    if (header->sent_ns == 0) header->sent_ns = stamp_ns();
    packet_write(packet, header, records);
    if (zmq.msg_send(&message, socket, ZMQ_DONTWAIT_FLAG) < 0) {
        const int error = zmq.last_errno(); /* before the close can change it */
        zmq.msg_close(&message);
        return -error;
    }
    return 0;
}

/* `count` records as packets of at most `packet_records`; `first` holds the first one's fields. Returns packets sent,
 * fewer than all if libzmq refused one after them; -errno if it refused the first. */
static inline int64_t wire_send_records(void *socket, frame_slots *slots, const packet_header *first,
                                        const char *records, size_t count, size_t packet_records) {
    int64_t packets = 0;
    for (size_t done = 0; done < count;) {
        packet_header header = *first;
        const size_t some = count - done < packet_records ? count - done : packet_records;
        header.sequence += done;
        header.count = (uint16_t)some;
        const int error = wire_send_packet(socket, slots, &header, records + done * header.size);
        if (error) return packets ? packets : error;
        done += some;
        packets++;
    }
    return packets;
}

#endif
