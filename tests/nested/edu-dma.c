/* Has QEMU's device edu (docs/specs/edu.txt of QEMU) write 4 bytes of its buffer to an address, from dom0: what a device does that
 * its last guest has left running. Sets bus mastering in the command register for that time.
 *
 *   edu-dma SBDF ADDRESS [leave]   exit status 0: the device has tried; whether the bytes have arrived depends on the IOMMU.
 *                                  With `leave`, bus mastering stays on, as after a guest
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int open_file(const char *device, const char *name) {
    char path[128];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", device, name);
    int file = open(path, O_RDWR | O_SYNC);
    if (file < 0)
        perror(path), exit(1);
    return file;
}

int main(int count, char **words) {
    if (count < 3)
        return 2;
    uint16_t before, command;
    int config = open_file(words[1], "config");
    if (pread(config, &before, 2, 4) != 2)
        return perror("config"), 1;
    command = before | 6; /* memory and bus master */
    if (pwrite(config, &command, 2, 4) != 2)
        return perror("config"), 1;
    volatile uint32_t *edu = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open_file(words[1], "resource0"), 0);
    if (edu == MAP_FAILED)
        return perror("mmap"), 1;
    for (int i = 0; i < 1000 && (edu[0x98 / 4] & 1); i++)
        usleep(1000); /* what the guest has begun */
    edu[0x80 / 4] = 0x40000;
    edu[0x88 / 4] = strtoul(words[2], NULL, 0);
    edu[0x90 / 4] = 4;
    edu[0x98 / 4] = 3;
    for (int i = 0; i < 5000; i++) {
        if (!(edu[0x98 / 4] & 1))
            return count == 3 && pwrite(config, &before, 2, 4) != 2;
        usleep(1000);
    }
    fprintf(stderr, "the device does not end its DMA\n");
    return 1;
}
